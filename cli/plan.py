"""The plan of an export, as the command line shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..export import ExportPlan


def show_plan(plan: ExportPlan) -> None:
    """Print the files with their sizes, and what the export needs."""
    typer.echo(f"would write {plan.folder.path} version {plan.version} ({plan.bytes / 1e6:.1f} MB)")
    for file in plan.files:
        typer.echo(f"  {file.bytes:>15,} {file.path}")
    typer.echo(
        f"disk: {plan.disk_bytes / 1e9:.2f} GB, of which {plan.scratch_bytes / 1e9:.2f} GB are removed at the end"
    )
    typer.echo(f"memory: about {plan.memory_bytes / 1e9:.1f} GB")
    if plan.graph_bytes:
        typer.echo(
            f"  and more than {plan.graph_bytes / 1e9:.1f} GB while ONNX Runtime runs the written model, to compare "
            "or to time it, which --verify none with --max-batch-tokens leaves out; with less than twice that "
            "available, it runs from the file and takes longer"
        )
