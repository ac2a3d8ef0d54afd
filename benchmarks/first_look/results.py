"""Results of a first look, and their report."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..environment import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One graph's embeddings against transformers fp32."""

    checkpoint: str
    graph: str
    rows: int
    min_cosine: float
    """Smallest cosine to the reference, in one batch."""
    min_batched_cosine: float
    """Smallest cosine between a row alone and the same row in the batch."""
    bit_identical: bool
    """Whether rows alone and in the batch are equal."""
    cpu_nodes: int
    """Nodes that ran on the CPU."""
    gpu_nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationError:
    """Error of an implementation of silu on gates from N(-3, 1.5)."""

    operator: str
    dtype: str
    relative_error: float
    """‖silu - exact‖ / ‖exact‖, with the exact silu of the rounded gates in fp64."""
    largest_error: float
    """Largest absolute error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewShapes:
    """Time of a graph's first and second pass at each of many new widths."""

    graph: str
    first_ms: tuple[float, ...]
    second_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantTime:
    """Passes of a variant of a four-layer graph, in turns with the other variants."""

    workload: str
    variant: str
    tokens: int
    wall_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Median pass."""
        return statistics.median(self.wall_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """Results of all checks."""

    environment: Environment
    accuracy: tuple[Accuracy, ...] = ()
    activations: tuple[ActivationError, ...] = ()
    new_shapes: tuple[NewShapes, ...] = ()
    variants: tuple[VariantTime, ...] = ()
    sanitizer: str = ""
    """Summary of compute-sanitizer on one pass with paged attention."""
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Check → reason."""

    def save(self, file: Path) -> None:
        """Write the results as JSON, replacing earlier ones."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


def render_first_look(look: FirstLook) -> str:
    """Return the results as lines of text."""
    gpu = look.environment.gpu
    lines = [f"{gpu.name if gpu else 'CPU'}, {', '.join(f'{k} {v}' for k, v in look.environment.packages.items())}"]
    lines += ["", "silu of gates from N(-3, 1.5): relative error, largest error"]
    lines += [
        f"  {each.dtype:9} {each.operator:10} {each.relative_error:.2e}  {each.largest_error:.2e}"
        for each in look.activations
    ]
    lines += ["", "accuracy: cosine to transformers fp32, cosine alone to batched, nodes on GPU + CPU"]
    lines += [
        f"  {each.checkpoint:34} {each.graph:12} {each.rows:3} rows"
        f"  {each.min_cosine:.7f}  {each.min_batched_cosine:.7f}"
        f"{' identical' if each.bit_identical else ''}  {each.gpu_nodes} + {each.cpu_nodes}"
        for each in look.accuracy
    ]
    lines += ["", "variants, four layers: median ms, tokens/s"]
    for each in look.variants:
        per_second = each.tokens / each.median_ms * 1000
        lines.append(f"  {each.workload:10} {each.variant:32} {each.median_ms:8.3f}  {per_second:11,.0f}")
    lines += ["", "20 new widths: median and largest ms of the first pass, of the second"]
    for shapes in look.new_shapes:
        first, second = (_median_and_largest(times) for times in (shapes.first_ms, shapes.second_ms))
        lines.append(f"  {shapes.graph:32} {first}   {second}")
    lines += ["", f"compute-sanitizer: {look.sanitizer or 'not run'}"]
    lines += [f"failed: {name}: {reason}" for name, reason in look.failures.items()]
    return "\n".join(lines)


def _median_and_largest(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f} {max(times):.2f}"
