"""Accuracy of int8 with outliers and massive activations: passes, choice of fp32 layers, written graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from int8_table import PASSES, apply, ignore_progress, int8_cosines
from outlier_checkpoint import (
    SHAPE,
    Tensors,
    realistic_tensors,
    rows_with_first_token,
    with_massive_first_token,
    with_outliers,
    write_tensors,
)
from written_graph import Vectors, min_cosine, official_vectors, write_graph

from qwen3_triton.client import Precision
from qwen3_triton.export import Int8AccuracyError, SilentProgress, SourceReference
from qwen3_triton.export.int8.error import GroupError, measure_groups
from qwen3_triton.export.int8.plan import MAX_FP32_SHARE, Int8Plan, choose_fp32_groups, plan_int8
from qwen3_triton.export.int8.products import TABLE, ProductGroup
from qwen3_triton.export.int8.rounding import NORM_OUTPUT_SCALE
from qwen3_triton.export.sources.checkpoint import Checkpoint, open_checkpoint
from qwen3_triton.export.verification.reference import ReferenceModel

CALIBRATION = rows_with_first_token(24, seed=11)
HELD_OUT = rows_with_first_token(24, seed=12)
CASES: dict[str, Callable[[Tensors], Tensors]] = {
    "plain": dict,
    "outliers": with_outliers,
    "outliers-and-massive": lambda tensors: with_outliers(with_massive_first_token(tensors)),
}
MUST_REACH = {"plain": 0.995, "outliers": 0.995, "outliers-and-massive": 0.985}


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint, its plan and the reference embeddings."""

    name: str
    source: Path
    checkpoint: Checkpoint
    plan: Int8Plan
    truth: Vectors


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = str(request.param)
    source = write_tensors(tmp_path_factory.mktemp(name) / "checkpoint", CASES[name](realistic_tensors()))
    checkpoint = open_checkpoint(SourceReference(str(source)))
    plan = plan_int8(checkpoint, CALIBRATION, 0.01, SilentProgress())
    return Case(name, source, checkpoint, plan, official_vectors(source, HELD_OUT))


def test_checkpoints_have_the_intended_outliers(case: Case) -> None:
    worst = int8_cosines(case.checkpoint, HELD_OUT).min()
    assert worst >= 0.99 if case.name == "plain" else worst <= 0.85
    peaks = ReferenceModel(case.checkpoint).embed(HELD_OUT, 4, ignore_progress).peaks
    assert (peaks.residual >= 3000) == (case.name == "outliers-and-massive")


def test_outliers_are_scaled_without_changing_the_function(tmp_path: Path) -> None:
    plain = write_tensors(tmp_path / "plain", realistic_tensors())
    scaled = write_tensors(tmp_path / "scaled", with_outliers(realistic_tensors()))
    assert min_cosine(official_vectors(scaled, HELD_OUT), official_vectors(plain, HELD_OUT)) >= 0.999999


def test_written_graph_reaches_the_simulated_accuracy(case: Case, tmp_path: Path) -> None:
    weights = case.plan.checkpoint.weights
    exact = write_graph(case.source, tmp_path / "fp32", change=lambda *_: weights).session.run(HELD_OUT)
    assert min_cosine(exact, case.truth) >= 0.99999
    written = write_graph(
        case.source,
        tmp_path / "int8",
        Precision.INT8,
        change=lambda *_: weights,
        norm_output_scale=NORM_OUTPUT_SCALE,
    )
    vectors = written.session.run_alone(HELD_OUT)
    assert not case.plan.fp32_groups
    assert min_cosine(vectors, case.truth) >= MUST_REACH[case.name]
    predicted = int8_cosines(case.plan.checkpoint, HELD_OUT)
    # codes next to a rounding boundary may differ and change single texts
    assert min_cosine(vectors, case.truth) == pytest.approx(float(predicted.min()), abs=6e-4)


def test_rotation_and_smoothing_together_are_best(case: Case) -> None:
    def worst(passes: str) -> float:
        return float(int8_cosines(apply(case.checkpoint, PASSES[passes], CALIBRATION), HELD_OUT).min())

    both = float(int8_cosines(case.plan.checkpoint, HELD_OUT).min())
    assert both == worst("rotated, v and up smoothed")
    assert both >= worst("none")
    # a common step for all norm outputs costs about this much
    assert both >= worst("smoothed") - 3e-4
    if case.name != "plain":
        assert both >= worst("rotated") + 0.01


def test_errors_of_products_add_up_to_the_error_of_the_vectors(case: Case) -> None:
    groups = measure_groups(case.plan.checkpoint, HELD_OUT, ignore_progress)
    predicted = 0.5 * sum(group.error**2 for group in groups)
    # random weights amplify errors more than trained ones, for which the estimate is within a third
    assert 0.5 * predicted <= 1 - float(int8_cosines(case.plan.checkpoint, HELD_OUT).mean()) <= 3 * predicted
    assert len(groups) == 1 + SHAPE.layers * len(ProductGroup)
    assert groups[0].paths == (TABLE,)
    assert sum(group.weights for group in groups) == sum(
        values.numel() for values in realistic_tensors().values() if values.dim() == 2
    )


def test_fp32_layers_are_not_rounded(case: Case) -> None:
    groups = measure_groups(case.plan.checkpoint, HELD_OUT, ignore_progress)
    everything, half = (frozenset(path for group in some for path in group.paths) for some in (groups, groups[:9]))
    least, between, worst = (
        1 - float(int8_cosines(case.plan.checkpoint, HELD_OUT, fp32_layers).min())
        for fp32_layers in (everything, half, frozenset[str]())
    )
    assert least <= 1e-6
    assert between < worst


def test_stricter_limit_moves_products_to_fp32_and_is_reached(tmp_path: Path) -> None:
    source = write_tensors(tmp_path / "checkpoint", realistic_tensors())
    checkpoint = open_checkpoint(SourceReference(str(source)))
    loose = plan_int8(checkpoint, CALIBRATION, 0.01, SilentProgress())
    goal = loose.worst * 0.6
    plan = plan_int8(checkpoint, CALIBRATION, 2 * goal, SilentProgress())
    assert plan.fp32_groups
    assert plan.worst <= goal
    assert 0 < plan.fp32_share < MAX_FP32_SHARE
    truth = official_vectors(source, HELD_OUT)
    mixed = write_graph(
        source,
        tmp_path / "mixed",
        Precision.INT8,
        fp32_layers=plan.fp32_paths,
        change=lambda *_: plan.checkpoint.weights,
        norm_output_scale=NORM_OUTPUT_SCALE,
    )
    vectors = mixed.session.run(HELD_OUT)
    assert 1 - min_cosine(vectors, truth) <= 2 * goal
    predicted = int8_cosines(plan.checkpoint, HELD_OUT, plan.fp32_paths)
    assert min_cosine(vectors, truth) == pytest.approx(float(predicted.min()), abs=6e-4)


def group(path: str, error: float, weights: int = 100) -> GroupError:
    return GroupError(layer=0, group=ProductGroup.DOWN, paths=(path,), error=error, weights=weights)


def test_largest_squared_error_per_weight_moves_to_fp32_first() -> None:
    a, b, c, d = group("a", 0.1), group("b", 0.2, 1000), group("c", 0.05), group("d", 0.01)
    # squares 0.01, 0.04, 0.0025, 0.0001 over weights: a, b, c, d
    groups = (d, c, b, a, group("rest", 0.0, 2000))
    assert choose_fp32_groups(groups, 0.05, (), 0.06) == ()
    assert choose_fp32_groups(groups, 0.05, (), 0.045) == (a,)
    assert choose_fp32_groups(groups, 0.05, (), 0.003) == (a, b)
    assert choose_fp32_groups(groups, 0.05, (a,), 0.001) == (a, b, c)


def test_at_most_half_of_the_multiply_adds_move_to_fp32() -> None:
    groups = tuple(group(name, 0.1) for name in "abcdef")
    assert len(choose_fp32_groups(groups, 0.5, (), 0.0)) == 3


def test_unreachable_limit_is_an_error(tmp_path: Path) -> None:
    source = write_tensors(tmp_path / "checkpoint", realistic_tensors())
    checkpoint = open_checkpoint(SourceReference(str(source)))
    with pytest.raises(Int8AccuracyError, match=r"with [45]\d% .* \(allowed: 1e-05\); allow a larger"):
        plan_int8(checkpoint, CALIBRATION[:4], 1e-5, SilentProgress())
