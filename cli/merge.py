"""`qwen3-triton merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..client.manifest import MergeReport
from ..export.options import DEFAULT_DENSITY, DEFAULT_FUSION, DEFAULT_SCALE, FuseOptions, FusionMethod


def merge(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL[=WEIGHT]",
            help="Local directory, or Hugging Face Hub id with optional @revision; with --with or --base, its weight.",
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
            help="Checkpoint of the same model to fuse MODEL with; may be repeated. Weights are 1 if not given, and "
            "relative except for task-arithmetic.",
        ),
    ] = None,
    method: Annotated[
        FusionMethod | None,
        typer.Option(
            help=f"How --with fuses the weights; {DEFAULT_FUSION} if not given. task-arithmetic and ties need --base."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="BASE", help="Checkpoint from which MODEL and those of --with were fine-tuned."),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option(
            help="ties: share of the values of each change that remains, the largest ones; "
            f"{DEFAULT_DENSITY} if not given."
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--lambda", help=f"Factor of the fused change, with --base; {DEFAULT_SCALE:g} if not given."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output directory.")] = False,
) -> None:
    """Merge LoRA adapters into a checkpoint, or fuse checkpoints, into one that transformers can load."""
    _check_usage(adapter, other, method, base=base, density=density, scale=scale)
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
        if other or base:
            folder = write_fused_checkpoint(
                FuseOptions(
                    checkpoints=tuple(WeightedCheckpoint.parse(text) for text in (model, *(other or ()))),
                    output=output,
                    method=method or DEFAULT_FUSION,
                    base=SourceReference.parse(base) if base else None,
                    density=DEFAULT_DENSITY if density is None else density,
                    scale=DEFAULT_SCALE if scale is None else scale,
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


def _check_usage(
    adapter: list[str] | None,
    other: list[str] | None,
    method: FusionMethod | None,
    *,
    base: str | None,
    density: float | None,
    scale: float | None,
) -> None:
    if adapter and (other or base):
        raise typer.BadParameter(
            "merge each adapter into its model first, and fuse the results", param_hint="--adapter"
        )
    if not adapter and not other and not base:
        raise typer.BadParameter("give --adapter to merge adapters, or --with to fuse checkpoints", param_hint="MODEL")
    if method and not other and not base:
        raise typer.BadParameter("applies to checkpoints given by --with", param_hint="--method")
    needs_base = method is not None and method.needs_base
    if needs_base and base is None:
        raise typer.BadParameter(f"{method} needs --base, the checkpoint before fine-tuning", param_hint="--method")
    if base is not None and not needs_base:
        raise typer.BadParameter("applies to --method task-arithmetic and ties", param_hint="--base")
    if density is not None and method is not FusionMethod.TIES:
        raise typer.BadParameter("applies to --method ties", param_hint="--density")
    if scale is not None and not needs_base:
        raise typer.BadParameter("applies to --method task-arithmetic and ties", param_hint="--lambda")
