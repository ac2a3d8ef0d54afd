"""Formulas of a fusion against those that mergekit publishes, computed here with numpy in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from qwen3_triton.export import FusionMethod
from qwen3_triton.export.passes.fuse import LINEAR_ABOVE, fuse_tensors
from qwen3_triton.export.sources.weights import in_memory

LINEAR, SLERP = WITHOUT_BASE = FusionMethod.LINEAR, FusionMethod.SLERP

rng = torch.Generator().manual_seed(3)
RANDOM = torch.randn(3, 24, 40, generator=rng)
ZEROS = torch.zeros(24, 40)


def at_angle(degrees: float) -> torch.Tensor:
    """Return a tensor of another length at this angle to the first of RANDOM."""
    a, b = RANDOM[0].double(), RANDOM[1].double()
    a = a / a.norm()
    across = b - (a * b).sum() * a
    angle = np.deg2rad(degrees)
    turned: torch.Tensor = 3.0 * (np.cos(angle) * a + np.sin(angle) * across / across.norm())
    return turned.float()


PAIRS = {
    "random": (RANDOM[0], RANDOM[1]),
    "1.5 degrees": (RANDOM[0], at_angle(1.5)),
    "2 degrees": (RANDOM[0], at_angle(2.0)),
    "90 degrees": (RANDOM[0], at_angle(90.0)),
    "178 degrees": (RANDOM[0], at_angle(178.0)),
    "179 degrees": (RANDOM[0], at_angle(179.0)),
    "opposite": (RANDOM[0], -RANDOM[0]),
    "colinear": (RANDOM[0], 2 * RANDOM[0]),
    "zeros first": (ZEROS, RANDOM[0]),
    "zeros last": (RANDOM[0], ZEROS),
    "below the smallest norm": (RANDOM[0], 1e-10 * RANDOM[1]),
    "vectors": (RANDOM[0, 0], RANDOM[1, 0]),
    "bf16": (RANDOM[0].bfloat16(), RANDOM[1].bfloat16()),
    "fp16 and fp32": (RANDOM[0].half(), RANDOM[1]),
}


def published_slerp(t: float, tensors: Sequence[torch.Tensor]) -> Any:
    """Interpolate by the angle of the directions; straight if they are nearly parallel or opposite."""
    p, q = (tensor.double().numpy() for tensor in tensors)
    directions = [v / np.linalg.norm(v) if np.linalg.norm(v) > 1e-8 else v for v in (p, q)]
    cosine = float((directions[0] * directions[1]).sum())
    if abs(cosine) > 0.9995:
        return (1 - t) * p + t * q
    omega = np.arccos(cosine)
    return np.sin((1 - t) * omega) / np.sin(omega) * p + np.sin(t * omega) / np.sin(omega) * q


def published_linear(weights: Sequence[float], tensors: Sequence[torch.Tensor]) -> Any:
    """Return the sum with weights, normalized."""
    return sum(w * tensor.double().numpy() for w, tensor in zip(weights, tensors, strict=True)) / sum(weights)


def fuse(tensors: Sequence[torch.Tensor], weights: Sequence[float], method: FusionMethod) -> torch.Tensor:
    return fuse_tensors([in_memory(tensor) for tensor in tensors], weights, method).load()


def assert_equal(fused: torch.Tensor, published: Any) -> None:
    assert fused.dtype is torch.float32
    largest = float(np.abs(published).max())
    np.testing.assert_allclose(fused.numpy(), published, rtol=0, atol=3e-7 * max(largest, 1.0))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.3), (1.0, 9.0), (3.0, 1e-3)])
@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_equals_the_published_formulas(name: str, weights: tuple[float, float]) -> None:
    pair = PAIRS[name]
    before = [tensor.clone() for tensor in pair]
    assert_equal(fuse(pair, weights, SLERP), published_slerp(weights[1] / sum(weights), pair))
    assert_equal(fuse(pair, weights, LINEAR), published_linear(weights, pair))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(pair, before, strict=True))


def test_the_pairs_are_on_both_sides_of_the_threshold() -> None:
    assert np.cos(np.deg2rad(2.0)) < LINEAR_ABOVE < np.cos(np.deg2rad(1.5))
    results = {name: [fuse(pair, (1, 1), method) for method in WITHOUT_BASE] for name, pair in PAIRS.items()}
    straight = [name for name, (linear, slerp) in results.items() if torch.equal(linear, slerp)]
    assert straight == ["1.5 degrees", "179 degrees", "opposite", "colinear"]


def test_slerp_keeps_the_length_of_tensors_of_equal_length() -> None:
    a, b = RANDOM[0], RANDOM[1] * (RANDOM[0].norm() / RANDOM[1].norm())
    torch.testing.assert_close(fuse((a, b), (0.4, 0.6), SLERP).norm(), a.norm())
    assert fuse((a, b), (0.4, 0.6), LINEAR).norm() < 0.8 * a.norm()


def test_several_tensors_are_fused_in_their_order() -> None:
    weights = (0.5, 0.2, 0.3)
    first = torch.from_numpy(published_slerp(0.2 / 0.7, (RANDOM[0], RANDOM[1])))
    assert_equal(fuse(list(RANDOM), weights, SLERP), published_slerp(0.3, (first, RANDOM[2])))


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_linear_is_the_weighted_mean_in_every_order(order: tuple[int, ...]) -> None:
    weights = (2.0, 0.5, 1.0)
    mean = published_linear(weights, list(RANDOM))
    assert_equal(fuse([RANDOM[i] for i in order], [weights[i] for i in order], LINEAR), mean)


@pytest.mark.parametrize("method", WITHOUT_BASE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_equal_tensors_keep_their_bits(method: FusionMethod, dtype: torch.dtype) -> None:
    tensor = RANDOM[0].to(dtype)
    tensor[0, :2] = -0.0
    fused = fuse([tensor] * 4, (0.1, 0.7, 1 / 3, 5.0), method)
    assert torch.equal(fused.view(torch.int32), tensor.float().view(torch.int32))


@pytest.mark.parametrize("method", WITHOUT_BASE)
def test_order_of_a_pair_does_not_matter(method: FusionMethod) -> None:
    a, b, _ = RANDOM
    one, other = fuse((a, b), (0.3, 0.7), method), fuse((b, a), (0.7, 0.3), method)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
