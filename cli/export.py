"""`qwen3-triton export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..client.manifest import Device, Precision, Verification
from ..export.options import (
    CudaAttention,
    EvaluationOptions,
    Int8Options,
    PairTemplate,
    ServerArchitecture,
    ServingOptions,
    TaskChoice,
    WitnessChoice,
)
from ..export.release import DEFAULT_RELEASE, TritonRelease
from .plan import show_plan
from .reports import show_reports

_SERVING = ServingOptions()
_INT8 = Int8Options()
_EVALUATION = EvaluationOptions()


def export(
    model: Annotated[str, typer.Argument(help="Local directory, or Hugging Face Hub id with optional @revision.")],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="DIR[=WEIGHT]", help="LoRA adapter to merge; may be repeated.")
    ] = None,
    repository: Annotated[Path, typer.Option(help="Triton model repository to write to.")] = Path("model_repository"),
    name: Annotated[str | None, typer.Option(help="Model name; the checkpoint's folder name if not given.")] = None,
    task: Annotated[
        TaskChoice, typer.Option(help="Task; auto detects it from the checkpoint and its adapters.")
    ] = TaskChoice.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="Precision of the weights; bf16 is for GPUs only.")
    ] = Precision.FP32,
    device: Annotated[Device, typer.Option(help="Device the graph is built for.")] = Device.CPU,
    triton_release: Annotated[
        TritonRelease, typer.Option(help="Release of NVIDIA's Triton image that a graph for GPUs must run in.")
    ] = DEFAULT_RELEASE,
    attention: Annotated[
        CudaAttention | None,
        typer.Option(
            help="GPUs: attention of batches of mixed lengths, over rows padded to the same length or over pages "
            "without padding. Default: the faster one in the Triton release."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Longest text in tokens; the checkpoint's limit, at most 8192, if not given."),
    ] = None,
    query_template: Annotated[
        str | None,
        typer.Option(
            help="Embedding models: query prompt with {text}, and {instruction} if it takes one; the checkpoint's if "
            "not given."
        ),
    ] = None,
    document_template: Annotated[
        str | None,
        typer.Option(help="Embedding models: document prompt with {text}; the checkpoint's if not given."),
    ] = None,
    instruction: Annotated[
        list[str] | None,
        typer.Option(
            help="Default instruction for queries. Repeat it for further instructions that clients send: on a CPU, the "
            "states of their prompts are stored in the model."
        ),
    ] = None,
    prefix_reuse: Annotated[
        bool,
        typer.Option(
            "--prefix-reuse/--no-prefix-reuse",
            help="CPUs: store the states of the tokens that the prompts begin with, instead of computing them for "
            "every text, and compute further tokens that texts of a batch begin with once. Results are the same.",
        ),
    ] = True,
    compact_output: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedding models: an additional output for clients that want smaller vectors, DIM:TYPE, DIM or TYPE, "
            "with type float32, float16 or ubinary; such as 256:float16. May be repeated."
        ),
    ] = None,
    template: Annotated[
        PairTemplate | None,
        typer.Option(help="Rerankers: separator between instruction, query and document; line if not given."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="int8: calibration texts, one per line or JSON lines with 'text'; built-in if not given."),
    ] = _INT8.calibration,
    max_int8_error: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1.0,
            help="int8: largest 1 - cosine to fp32 on held-out texts (default 0.01), or largest difference of a "
            "reranker's score (default 0.1); matrix products stay in fp32 as needed to reach it.",
        ),
    ] = _INT8.max_error,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Embedding models: retrieval set in BEIR's layout; its nDCG@10 is measured with transformers in fp32 "
            "and with the exported graph.",
        ),
    ] = _EVALUATION.folder,
    max_ndcg_loss: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest acceptable loss of nDCG@10 with --evaluation; beyond it, nothing is written.",
        ),
    ] = _EVALUATION.max_ndcg_loss,
    max_batch_rows: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest number of rows (texts) in a batch or request. Default: 64, or fewer if a GPU cannot index "
            "that many rows of the longest length.",
        ),
    ] = _SERVING.max_batch_rows,
    max_batch_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest number of tokens in a batch; a larger request is computed separately. Default: what the "
            "device computes in about a second (CPU) or a tenth of a second (GPU).",
        ),
    ] = _SERVING.max_batch_tokens,
    token_budget: Annotated[
        bool,
        typer.Option(
            "--token-budget/--no-token-budget",
            help="Limit batches by tokens, with a batching strategy library in the model's folder; else by rows.",
        ),
    ] = _SERVING.token_budget,
    server_arch: Annotated[
        ServerArchitecture, typer.Option(help="CPU architecture of the server, for the batching strategy library.")
    ] = _SERVING.server_architecture,
    queue_delay_us: Annotated[
        int,
        typer.Option(
            min=0, help="Longest time in microseconds that a request waits for others while the model is idle."
        ),
    ] = _SERVING.queue_delay_us,
    max_queue_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Requests that may wait in Triton's queue; it rejects more. No limit if not given: with a limit, "
            "requests may be delayed by half a second.",
        ),
    ] = _SERVING.max_queue_size,
    queue_timeout_ms: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Milliseconds after which a request that waits in Triton's queue is rejected. No limit if not given: "
            "with a limit, requests may be delayed by half a second.",
        ),
    ] = _SERVING.queue_timeout_ms,
    instances: Annotated[
        int, typer.Option(min=1, help="Number of model instances; on a CPU set --threads as well.")
    ] = _SERVING.instances,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads per instance; 0 for all cores.")] = _SERVING.threads,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="GPU memory limit per instance in GB; no limit if not given.")
    ] = None,
    verify: Annotated[
        Verification,
        typer.Option(
            help="Texts on which the written model is compared with transformers in fp32: full, of up to --max-tokens; "
            "quick, of up to a length that follows from the model's size; none."
        ),
    ] = Verification.QUICK,
    witness: Annotated[
        WitnessChoice,
        typer.Option(
            help="Library that must get the same results by its own code: sentence-transformers from the texts, or "
            "optimum, by a graph of its own. auto: sentence-transformers, where it can load the sources."
        ),
    ] = WitnessChoice.AUTO,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Put the next version of an existing model of this name into use.")
    ] = False,
    keep_versions: Annotated[
        int,
        typer.Option(
            min=1, help="With --overwrite: number of versions to keep, the new one included; see the command rollback."
        ),
    ] = 2,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Write nothing; print the files, their sizes, and the memory and disk that they need."
        ),
    ] = False,
) -> None:
    """Convert a checkpoint and optional LoRA adapters to a Triton model."""
    from ..export import (
        AdapterReference,
        EvaluationOptions,
        ExportOptions,
        Int8Options,
        OutputChoice,
        ServingOptions,
        SourceReference,
        export_model,
        plan_export,
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
        triton_release=triton_release,
        cuda_attention=attention,
        max_tokens=max_tokens,
        query_template=query_template,
        document_template=document_template,
        instruction=instruction[0] if instruction else None,
        further_instructions=tuple((instruction or [])[1:]),
        prefix_reuse=prefix_reuse,
        compact_outputs=tuple(map(OutputChoice.parse, compact_output or [])),
        template=template,
        int8=Int8Options(calibration=calibration, max_error=max_int8_error),
        evaluation=EvaluationOptions(folder=evaluation, max_ndcg_loss=max_ndcg_loss),
        serving=ServingOptions(
            max_batch_rows=max_batch_rows,
            max_batch_tokens=max_batch_tokens,
            token_budget=token_budget,
            server_architecture=server_arch,
            queue_delay_us=queue_delay_us,
            max_queue_size=max_queue_size,
            queue_timeout_ms=queue_timeout_ms,
            instances=instances,
            threads=threads,
            gpu_memory_bytes=None if gpu_memory_gb is None else int(gpu_memory_gb * 1e9),
        ),
        verify=verify,
        witness=witness,
        overwrite=overwrite,
        keep_versions=keep_versions,
    )
    if dry_run:
        with open_progress() as progress:
            plan = plan_export(options, progress)
        show_plan(plan)
        return
    with open_progress() as progress:
        result = export_model(options, progress)
    show_reports(result.record)
    typer.echo(f"wrote {result.folder.path} version {result.version} ({result.bytes_written / 1e6:.1f} MB, {device})")
