"""Task arithmetic and TIES against the formulas that mergekit publishes, computed here with numpy in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qwen3_triton.export.passes.task_vectors import add_task_vectors, add_ties
from qwen3_triton.export.sources import weights as weight_files
from qwen3_triton.export.sources.weights import in_memory, read_safetensors

rng = torch.Generator().manual_seed(4)
BASE = torch.randn(24, 40, generator=rng)
CHANGES = 0.1 * torch.randn(3, 24, 40, generator=rng)
TUNED = [BASE + change for change in CHANGES]

CASES: dict[str, list[torch.Tensor]] = {
    "one": TUNED[:1],
    "two": TUNED[:2],
    "three": TUNED,
    "opposite": [BASE + CHANGES[0], BASE - CHANGES[0]],
    "one of them is the base": [BASE, *TUNED[1:]],
    "bf16": [tensor.bfloat16() for tensor in TUNED],
    "fp16 and fp32": [TUNED[0].half(), TUNED[1]],
}


def task_vectors(base: torch.Tensor, tensors: Sequence[torch.Tensor]) -> list[Any]:
    # the differences of stored values are those of fp32, which decide what has the largest magnitude
    return [(tensor.float() - base).numpy().astype(np.float64) for tensor in tensors]


def published_task_arithmetic(
    base: torch.Tensor, tensors: Sequence[torch.Tensor], weights: Sequence[float], scale: float
) -> Any:
    changes = task_vectors(base, tensors)
    return base.double().numpy() + scale * sum(w * change for w, change in zip(weights, changes, strict=True))


def published_ties(
    base: torch.Tensor, tensors: Sequence[torch.Tensor], weights: Sequence[float], density: float, scale: float
) -> Any:
    """Trim, elect the sign, and average the values that have it, value by value."""
    trimmed = []
    for change in task_vectors(base, tensors):
        largest = np.argsort(-np.abs(change), axis=None, kind="stable")[: max(1, int(density * change.size))]
        kept = np.zeros(change.size)
        kept[largest] = change.ravel()[largest]
        trimmed.append(kept.reshape(change.shape))
    result = base.double().numpy().copy()
    for place in np.ndindex(*base.shape):
        votes = [(weight, weight * kept[place]) for weight, kept in zip(weights, trimmed, strict=True)]
        sign = 1 if sum(vote for _, vote in votes) >= 0 else -1
        agreeing = [(weight, vote) for weight, vote in votes if np.sign(vote) == sign]
        if agreeing:
            result[place] += scale * sum(vote for _, vote in agreeing) / sum(weight for weight, _ in agreeing)
    return result


def load_ties(
    base: torch.Tensor, tensors: Sequence[torch.Tensor], weights: Sequence[float], density: float, scale: float = 1.0
) -> torch.Tensor:
    return add_ties(in_memory(base), [in_memory(tensor) for tensor in tensors], weights, density, scale).load()


def load_sum(
    base: torch.Tensor, tensors: Sequence[torch.Tensor], weights: Sequence[float], scale: float = 1.0
) -> torch.Tensor:
    return add_task_vectors(in_memory(base), [in_memory(tensor) for tensor in tensors], weights, scale).load()


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 1.9), (-0.5, 1.0, 0.25)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_task_arithmetic_equals_the_published_formula(name: str, weights: tuple[float, ...], scale: float) -> None:
    tensors = CASES[name]
    before = [tensor.clone() for tensor in (BASE, *tensors)]
    found = load_sum(BASE, tensors, weights[: len(tensors)], scale)
    expected = published_task_arithmetic(BASE, tensors, weights[: len(tensors)], scale)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((BASE, *tensors), before, strict=True))


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 1e-6])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.7, 0.2, 1.9)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_ties_equals_the_published_formula(name: str, weights: tuple[float, ...], density: float, scale: float) -> None:
    tensors = CASES[name]
    before = [tensor.clone() for tensor in (BASE, *tensors)]
    found = load_ties(BASE, tensors, weights[: len(tensors)], density, scale)
    expected = published_ties(BASE, tensors, weights[: len(tensors)], density, scale)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((BASE, *tensors), before, strict=True))


def test_trimming_keeps_the_largest_values_and_those_equal_to_the_smallest_of_them() -> None:
    values = torch.tensor([[1.0, -3.0, 2.0], [-2.0, 0.5, 4.0]])

    def trim(density: float) -> list[list[float]]:
        kept: list[list[float]] = load_ties(torch.zeros(2, 3), [values], [1.0], density).tolist()
        return kept

    assert trim(0.5) == [[0.0, -3.0, 2.0], [-2.0, 0.0, 4.0]]
    assert trim(0.4) == [[0.0, -3.0, 0.0], [0.0, 0.0, 4.0]]
    assert trim(0.01) == [[0.0, 0.0, 0.0], [0.0, 0.0, 4.0]]
    assert trim(1.0) == values.tolist()


@pytest.mark.parametrize("shape", [(24, 40), (7,), (5, 1000)], ids=str)
def test_parts_of_stored_tensors_give_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(weight_files, "_PART", 300)
    tensors = list(torch.randn(3, *shape, generator=rng))
    for number, tensor in enumerate(tensors):
        (tmp_path / str(number)).mkdir()
        save_file({"a": tensor.clone()}, tmp_path / str(number) / "model.safetensors")
    base, *tuned = (read_safetensors(tmp_path / str(number), "*.safetensors")["a"] for number in range(3))
    assert len(list(base.fp32_parts())) == -(-shape[0] // max(1, 300 // math.prod(shape[1:])))
    found = add_ties(base, tuned, (0.7, 0.2), 0.4, 1.0).load()
    assert torch.equal(found, load_ties(tensors[0], tensors[1:], (0.7, 0.2), 0.4))
    summed = add_task_vectors(base, tuned, (0.7, -0.2), 1.0).load()
    assert torch.equal(summed, load_sum(tensors[0], tensors[1:], (0.7, -0.2)))


def test_values_that_no_checkpoint_changes_keep_their_bits() -> None:
    base = BASE.clone()
    base[0, :2] = -0.0
    tuned = base.clone()
    tuned[1:] += 0.1
    for found in (load_sum(base, [tuned, base], (0.3, 1.0)), load_ties(base, [tuned, base], (0.3, 1.0), 1.0)):
        assert torch.equal(found[0].view(torch.int32), base[0].view(torch.int32))
        assert not torch.equal(found[1:], base[1:])
