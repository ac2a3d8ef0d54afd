"""`qwen3-triton export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..client.contract import EmbeddingContract, Precision
from ..export.options import Device, ServingOptions, TaskChoice

_SERVING = ServingOptions()


def export(
    model: Annotated[str, typer.Argument(help="Local directory, or hub id with optional @revision.")],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="DIR[=WEIGHT]", help="LoRA adapter to merge; may be repeated.")
    ] = None,
    repository: Annotated[Path, typer.Option(help="Triton model repository to write into.")] = Path("model_repository"),
    name: Annotated[str | None, typer.Option(help="Model name; the checkpoint's folder name if not given.")] = None,
    task: Annotated[TaskChoice, typer.Option(help="auto refuses what looks like a reranker.")] = TaskChoice.AUTO,
    precision: Annotated[Precision, typer.Option(help="Precision of the weights.")] = Precision.FP32,
    device: Annotated[Device, typer.Option(help="Device the graph is built for.")] = Device.CPU,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Longest text in tokens; the checkpoint's limit, at most 8192, if not given."),
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="Default instruction for queries.")] = None,
    max_batch_rows: Annotated[int, typer.Option(min=1, help="Most rows in one batch.")] = _SERVING.max_batch_rows,
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="Longest wait for company, microseconds.")
    ] = _SERVING.queue_delay_us,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model.")] = _SERVING.instances,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of that name.")] = False,
) -> None:
    """Convert a checkpoint, with LoRA adapters merged in, to a model that Triton serves."""
    from ..export import (
        AdapterReference,
        ExportOptions,
        ServingOptions,
        SourceReference,
        export_model,
    )
    from .progress import open_progress

    options = ExportOptions(
        model=SourceReference.parse(model),
        adapters=tuple(AdapterReference.parse(text) for text in adapter or []),
        repository=repository,
        name=name,
        task=task,
        precision=precision,
        device=device,
        max_tokens=max_tokens,
        instruction=instruction,
        serving=ServingOptions(max_batch_rows=max_batch_rows, queue_delay_us=queue_delay_us, instances=instances),
        overwrite=overwrite,
    )
    with open_progress() as progress:
        result = export_model(options, progress)
    _show(result.contract)
    typer.echo(f"wrote {result.folder.path} version {result.version} ({result.bytes_written / 1e6:.1f} MB, {device})")


def _show(contract: EmbeddingContract) -> None:
    parity = contract.parity
    company = "bit-identical" if parity.company_bit_identical else f"cosine {parity.min_company_cosine:.7f}"
    typer.echo(f"parity with {parity.reference}: {parity.texts} texts, up to {parity.longest_tokens} tokens")
    typer.echo(
        f"  min cosine {parity.min_cosine:.8f} (gate {parity.gate_min_cosine}), mean {parity.mean_cosine:.8f}, "
        f"max error {parity.max_abs_error:.1e}"
    )
    typer.echo(f"  alone against in company: {company}  ({parity.runtime})")
