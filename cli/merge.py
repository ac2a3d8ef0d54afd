"""`qwen3-triton merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    model: Annotated[str, typer.Argument(help="Local directory, or Hugging Face Hub id with optional @revision.")],
    adapter: Annotated[list[str], typer.Option(metavar="DIR[=WEIGHT]", help="LoRA adapter to merge; may be repeated.")],
    output: Annotated[Path, typer.Option(help="Output directory.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output directory.")] = False,
) -> None:
    """Merge LoRA adapters into a checkpoint that transformers can load."""
    from ..export import AdapterReference, MergeOptions, SourceReference, write_merged_checkpoint
    from .progress import open_progress
    from .reports import show_merges

    options = MergeOptions(
        model=SourceReference.parse(model),
        adapters=tuple(AdapterReference.parse(text) for text in adapter),
        output=output,
        overwrite=overwrite,
    )
    with open_progress() as progress:
        result = write_merged_checkpoint(options, progress)
    show_merges(result.merges)
    typer.echo(f"wrote {result.folder}")
