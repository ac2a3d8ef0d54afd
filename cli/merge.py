"""`qwen3-triton merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..client.manifest import MergeReport
from ..export.options import DEFAULT_FUSION, FuseOptions, FusionMethod


def merge(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[=WEIGHT]",
            help="Local directory, or Hugging Face Hub id with optional @revision; with --with, its weight.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Output directory.")],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="DIR[=WEIGHT]", help="LoRA adapter to merge; may be repeated.")
    ] = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="OTHER[=WEIGHT]",
            help="Checkpoint of the same model to fuse MODEL with; may be repeated. Weights are relative, 1 if not "
            "given.",
        ),
    ] = None,
    method: Annotated[
        FusionMethod | None, typer.Option(help=f"How --with fuses the weights; {DEFAULT_FUSION} if not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output directory.")] = False,
) -> None:
    """Merge LoRA adapters into a checkpoint, or fuse checkpoints, into one that transformers can load."""
    _check_usage(adapter, other, method)
    from ..export import (
        AdapterReference,
        MergeOptions,
        SourceReference,
        WeightedCheckpoint,
        write_fused_checkpoint,
        write_merged_checkpoint,
    )
    from .progress import open_progress
    from .reports import show_merges

    merges: tuple[MergeReport, ...] = ()
    with open_progress() as progress:
        if other:
            folder = write_fused_checkpoint(
                FuseOptions(
                    checkpoints=tuple(WeightedCheckpoint.parse(text) for text in (model, *other)),
                    output=output,
                    method=method or DEFAULT_FUSION,
                    overwrite=overwrite,
                ),
                progress,
            )
        else:
            result = write_merged_checkpoint(
                MergeOptions(
                    model=SourceReference.parse(model),
                    adapters=tuple(AdapterReference.parse(text) for text in adapter or []),
                    output=output,
                    overwrite=overwrite,
                ),
                progress,
            )
            folder, merges = result.folder, result.merges
    show_merges(merges)
    typer.echo(f"wrote {folder}")


def _check_usage(adapter: list[str] | None, other: list[str] | None, method: FusionMethod | None) -> None:
    if adapter and other:
        raise typer.BadParameter(
            "merge each adapter into its model first, and fuse the results", param_hint="--adapter"
        )
    if not adapter and not other:
        raise typer.BadParameter("give --adapter to merge adapters, or --with to fuse checkpoints", param_hint="MODEL")
    if method and not other:
        raise typer.BadParameter("applies to checkpoints given by --with", param_hint="--method")
