"""Print the smallest and mean cosines of int8 with rotation, smoothing and both, on checkpoints with outliers.

`python tests/export/int8_table.py --hidden 1024 --layers 4` uses random weights of that size, `--checkpoint DIR` those
of a checkpoint, with the same outliers added.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from outlier_checkpoint import (
    SHAPE,
    Tensors,
    realistic_tensors,
    rows_with_first_token,
    with_massive_first_token,
    with_outliers,
    write_tensors,
)
from tiny_checkpoint import TinyCheckpoint

from qwen3_triton.export import SourceReference
from qwen3_triton.export.int8.calibration import held_out_texts, read_calibration
from qwen3_triton.export.int8.choose_smoothing import choose_smoothing
from qwen3_triton.export.int8.error import measure_cosines
from qwen3_triton.export.int8.plan import SMOOTHING_POINTS
from qwen3_triton.export.passes.rotate import rotate_stream
from qwen3_triton.export.passes.rotation import make_rotation
from qwen3_triton.export.passes.smooth import SmoothingPoint, smooth_weights
from qwen3_triton.export.sources.checkpoint import Checkpoint, open_checkpoint
from qwen3_triton.export.sources.tokenizer import read_tokenizer
from qwen3_triton.export.sources.weights import in_memory

Rows = Sequence[Sequence[int]]
Change = Callable[[Tensors], Tensors]


@dataclass(frozen=True, slots=True)
class Passes:
    """Passes that are applied before rounding."""

    rotated: bool
    points: tuple[SmoothingPoint, ...]


PASSES = {
    "none": Passes(False, ()),
    "smoothed": Passes(False, tuple(SmoothingPoint)),
    "rotated": Passes(True, ()),
    "rotated, v and up smoothed": Passes(True, SMOOTHING_POINTS),
}


def apply(checkpoint: Checkpoint, passes: Passes, calibration: Rows) -> Checkpoint:
    """Apply the passes to the checkpoint."""
    if passes.rotated:
        rotation = make_rotation(checkpoint.config.hidden)
        checkpoint = checkpoint.with_weights(rotate_stream(checkpoint.weights, checkpoint.config, rotation))
    if passes.points:
        layers = choose_smoothing(checkpoint, calibration, passes.points, ignore_progress).layers
        checkpoint = checkpoint.with_weights(smooth_weights(checkpoint.weights, checkpoint.config, layers))
    return checkpoint.with_weights({name: in_memory(tensor.fp32()) for name, tensor in checkpoint.weights.items()})


def int8_cosines(checkpoint: Checkpoint, rows: Rows, fp32_layers: frozenset[str] = frozenset()) -> torch.Tensor:
    """Return the cosine between int8 and fp32 embeddings of every row; `fp32_layers` are not rounded."""
    exact = choose_smoothing(checkpoint, rows, (), ignore_progress).vectors
    return measure_cosines(checkpoint, rows, fp32_layers, exact, ignore_progress)


def ignore_progress(_done: int, _total: int) -> None:
    """Ignore progress."""


def measure(name: str, checkpoint: Checkpoint, calibration: Rows, held_out: Rows) -> Iterator[str]:
    """Yield a line of the table for each of PASSES."""
    for label, passes in PASSES.items():
        found = int8_cosines(apply(checkpoint, passes, calibration), held_out)
        yield f"| {name} | {label} | {found.min():.5f} | {found.mean():.5f} |"


def _seeded(shape: TinyCheckpoint, folder: Path) -> Iterator[str]:
    cases: dict[str, Change] = {
        "plain": dict,
        "outliers": with_outliers,
        "outliers, massive first token": lambda tensors: with_outliers(with_massive_first_token(tensors, shape)),
    }
    calibration, held_out = (rows_with_first_token(24, seed, shape) for seed in (11, 12))
    for name, change in cases.items():
        source = write_tensors(folder / name, change(realistic_tensors(shape=shape)), shape)
        yield from measure(name, open_checkpoint(SourceReference(str(source))), calibration, held_out)


def _trained(folder: Path) -> Iterator[str]:
    checkpoint = open_checkpoint(SourceReference(str(folder)))
    tokenizer = read_tokenizer(checkpoint.directory, checkpoint.config.vocabulary)
    calibration, held_out = (tokenizer.rows(texts, 512) for texts in (read_calibration(None).texts, held_out_texts()))
    scaled = with_outliers({name: tensor.fp32() for name, tensor in checkpoint.weights.items()})
    worse = {name: in_memory(values) for name, values in scaled.items()}
    yield from measure("plain", checkpoint, calibration, held_out)
    yield from measure("outliers", checkpoint.with_weights(worse), calibration, held_out)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=SHAPE.hidden)
    parser.add_argument("--layers", type=int, default=SHAPE.layers)
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()
    shape = dataclasses.replace(
        SHAPE,
        hidden=arguments.hidden,
        intermediate=3 * arguments.hidden,
        layers=arguments.layers,
        heads=arguments.hidden // 64,
    )
    shape = dataclasses.replace(shape, kv_heads=max(shape.heads // 2, 1))
    sys.stdout.write("| checkpoint | passes | smallest cosine | mean |\n|---|---|---|---|\n")
    with TemporaryDirectory() as folder:
        for line in _trained(arguments.checkpoint) if arguments.checkpoint else _seeded(shape, Path(folder)):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
