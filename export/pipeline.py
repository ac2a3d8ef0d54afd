"""Checkpoint → merged → lowered → graph → written → verified → renamed into the repository."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..client.manifest import (
    Device,
    EmbeddingManifest,
    ExportRecord,
    ModelFolder,
    ModelRecipe,
    PrefixRecord,
    RangeReport,
    RerankManifest,
    SourceIdentity,
    TokenizerIdentity,
    WitnessReport,
)
from ..client.manifest.packed_tokenizer import pack_tokenizer
from .artifacts.config_pbtxt import render_config
from .artifacts.graph_file import write_graph
from .artifacts.memory import report_memory
from .artifacts.provenance import record_provenance
from .artifacts.staging import refuse_existing, staged_folder
from .artifacts.versions import add_earlier_versions, copy_description, next_version
from .batching.library import copy_library
from .batching.limits import BatchLimits, check_batch_rows, limit_batches
from .errors import ExportError
from .formats import Tolerance, WeightFormat, weight_format
from .formats.lowering import LoweredWeights, LoweringInputs
from .graph_choice import graph_options, opens_graph
from .int8.calibration import CALIBRATION_TOKENS, LONGEST_ROW, CalibrationTexts, read_calibration, subsample
from .model_sources import ModelSources, open_sources
from .option_checks import check_options, chosen_attention, model_name
from .options import ExportOptions, Int8Options
from .prefix_choice import record_prefixes
from .progress import Progress, SilentProgress
from .reference_evidence import ReferenceEvidence, compute_reference, consult_witness, report_range
from .sources.checkpoint import Checkpoint
from .sources.retrieval_set import RetrievalSet, read_retrieval_set
from .tasks.task import ManifestFields
from .verification.runtime import WrittenModel
from .verification.token_budget import TokenBudget, measure_token_budget
from .verification.written_check import open_for_check
from .written_evidence import WrittenEvidence, WrittenGraph, verify_graph


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """Result of an export."""

    folder: ModelFolder
    """Folder of the model in the repository."""
    name: str
    """Model name."""
    version: int
    """Version number that was written."""
    record: ExportRecord
    """Content of `manifest.json`."""
    bytes_written: int
    """Total size of the files."""

    @property
    def manifest(self) -> EmbeddingManifest | RerankManifest:
        """The part of the record that clients use."""
        return self.record.manifest


def export_model(options: ExportOptions, progress: Progress | None = None) -> ExportResult:
    """Export a checkpoint with its adapters to a Triton model repository.

    The written graph is compared with transformers in fp32, as far as `options.verify` says, before the model's folder
    is created, atomically, in the repository. If an exception is raised, the repository is unchanged.

    Args:
        options: What to export, and how.
        progress: Receives stages, steps and notes; None reports nothing.

    Returns:
        The written folder and the content of its manifest.

    Raises:
        SourceError: The checkpoint, an adapter or another input file does not exist or cannot be read.
        UnsupportedCheckpointError: The checkpoint or an adapter has a setting that is not supported.
        AdapterMismatchError: An adapter does not match the checkpoint.
        ModelExistsError: The model exists and `options.overwrite` is not set.
        StagingError: The model cannot be written to the repository.
        WitnessError: A second library reads the sources differently.
        ParityError: The written graph does not match the reference.
        Int8AccuracyError: The int8 error exceeds its limit.
        RetrievalQualityError: The loss of nDCG@10 exceeds its limit.
        ExportError: Options cannot be combined, or the graph needs operators that the runtime does not have.
    """
    progress = progress or SilentProgress()
    check_options(options)
    format = weight_format(options.precision, options.device)
    name = model_name(options)
    folder = ModelFolder(options.repository / name)
    refuse_existing(folder.path, overwrite=options.overwrite)
    calibration = _read_calibration(options, format)
    evaluation = _read_evaluation(options)
    progress.stage(f"reading {options.model}")
    sources = open_sources(options, progress)
    if options.device is Device.CUDA:
        check_batch_rows(options.serving, sources.checkpoint.config, sources.max_tokens)
    retrieval = None if evaluation is None else sources.task.retrieval_rows(evaluation, sources.max_tokens)
    int8_tolerance = _int8_tolerance(sources, options, format)
    version = next_version(folder)
    with staged_folder(folder.path, overwrite=options.overwrite) as content, ThreadPoolExecutor(1) as background:
        scratch, staged = content.parent, ModelFolder(content)
        reference = compute_reference(
            sources,
            retrieval=retrieval,
            verify=options.verify,
            calibrated=calibration is not None,
            may_overflow=format.may_overflow,
            progress=progress,
        )
        witness = consult_witness(sources, reference.probes, options.witness, scratch, progress)
        # beside the writer, which waits for the disk
        identity = background.submit(sources.checkpoint.identity)
        lowered = _lower(sources, format, reference, calibration, int8_tolerance, progress)
        graph = _write(lowered, sources, options, staged.graph(version), scratch, progress)
        evidence = verify_graph(
            graph,
            sources,
            reference,
            calibration=calibration,
            int8_tolerance=int8_tolerance,
            retrieval=retrieval,
            max_ndcg_loss=options.evaluation.max_ndcg_loss,
            progress=progress,
        )
        limits = _limit_batches(graph.model, sources, options, format, progress)
        outputs = sources.task.compact_outputs(options.compact_outputs)
        manifest = sources.task.describe(_manifest_fields(sources, options, limits, version), outputs)
        tokenizer = sources.tokenizer.content
        staged.tokenizer.write_bytes(tokenizer)
        packed = pack_tokenizer(tokenizer)
        if packed is None:
            progress.note("the tokenizer is too large for config.pbtxt: clients need a copy of tokenizer.json")
        config = render_config(name, manifest, packed, options, limits, version)
        staged.config.write_text(config, encoding="utf-8")
        if limits.tokens is not None:
            copy_library(options.serving.server_architecture, staged.batch_strategy(version))
        fp16_range = None
        if reference.survey is not None and lowered.peaks is not None:
            fp16_range = report_range(reference.survey, lowered.peaks, lowered.rescale)
        prefixes = record_prefixes(graph.prefixes, sources)
        record = _build_record(
            manifest, sources, identity.result(), witness, fp16_range, evidence, prefixes, options, staged
        )
        staged.manifest.write_text(record.to_json() + "\n", encoding="utf-8")
        copy_description(staged, staged.version(version))
        size = sum(file.stat().st_size for file in content.rglob("*") if file.is_file())
        add_earlier_versions(folder, staged, version, options.keep_versions)
    return ExportResult(folder=folder, name=name, version=version, record=record, bytes_written=size)


def _lower(
    sources: ModelSources,
    format: WeightFormat,
    reference: ReferenceEvidence,
    calibration: CalibrationTexts | None,
    int8_tolerance: Tolerance,
    progress: Progress,
) -> LoweredWeights:
    rows = []
    if calibration is not None:
        rows = sources.task.text_rows(calibration.texts, min(sources.max_tokens, LONGEST_ROW))
    return format.lower(
        LoweringInputs(
            checkpoint=sources.checkpoint,
            peaks=None if reference.survey is None else reference.survey.peaks,
            calibration_rows=subsample(rows, CALIBRATION_TOKENS),
            max_cosine_error=sources.task.cosine_limit(int8_tolerance, format.tolerance),
            progress=progress,
        )
    )


def _write(
    lowered: LoweredWeights,
    sources: ModelSources,
    options: ExportOptions,
    file: Path,
    scratch: Path,
    progress: Progress,
) -> WrittenGraph:
    graph = graph_options(sources, lowered, options)
    progress.stage(f"writing {options.precision} graph")
    write_graph(lowered.checkpoint, file, graph, progress)
    opened = opens_graph(options)
    model = open_for_check(file, lowered.checkpoint, graph, scratch, progress) if opened else None
    return WrittenGraph(model=model, file=file, lowered=lowered, prefixes=graph.prefixes)


def _build_record(
    manifest: EmbeddingManifest | RerankManifest,
    sources: ModelSources,
    checkpoint: SourceIdentity,
    witness: WitnessReport | None,
    fp16_range: RangeReport | None,
    evidence: WrittenEvidence,
    prefixes: tuple[PrefixRecord, ...],
    options: ExportOptions,
    staged: ModelFolder,
) -> ExportRecord:
    return ExportRecord(
        manifest=manifest,
        device=options.device,
        triton_release=options.triton_release if options.device is Device.CUDA else None,
        checkpoint=checkpoint,
        adapters=tuple(adapter.identity() for adapter in sources.adapters),
        merges=sources.checkpoint.merges,
        origins=sources.origins,
        recipe=_describe_recipe(sources.checkpoint),
        prefixes=prefixes,
        verification=options.verify,
        parity=evidence.parity,
        witness=witness,
        fp16_range=fp16_range,
        quantization=evidence.quantization,
        retrieval=evidence.retrieval,
        provenance=record_provenance(options, staged),
    )


def _describe_recipe(checkpoint: Checkpoint) -> ModelRecipe:
    return ModelRecipe(
        causal=checkpoint.config.causal,
        pooling=checkpoint.head.pooling.label,
        modules=tuple(map(str, checkpoint.head.dense)),
    )


def _limit_batches(
    model: WrittenModel | None, sources: ModelSources, options: ExportOptions, format: WeightFormat, progress: Progress
) -> BatchLimits:
    """Choose the limits of a batch and report where they come from."""
    config, serving = sources.checkpoint.config, options.serving
    if options.device is Device.CPU and serving.instances > 1 and not serving.threads:
        progress.note(
            f"each of {serving.instances} instances uses every core, which is usually slower than one instance: set "
            "the threads of an instance to its share of the cores"
        )
    if serving.max_queue_size is not None or serving.queue_timeout_ms is not None:
        progress.note(
            "limits of the queue may delay requests by half a second: with them, Triton 24.10 to 26.06 does not always "
            "notice that an instance is free"
        )
    if serving.max_batch_tokens is None:
        progress.stage("measuring the token budget of a batch")
        budget = measure_token_budget(model, options.device, config, sources.max_tokens)
    else:
        budget = TokenBudget(serving.max_batch_tokens, "as configured")
    on_gpu = options.device is Device.CUDA
    attention = chosen_attention(options, sources.checkpoint.head) if on_gpu else None
    limits = limit_batches(serving, config, sources.max_tokens, attention, budget.tokens)
    if limits.tokens is None:
        progress.note(f"a batch has at most {limits.rows} rows of up to {sources.max_tokens:,} tokens, {budget.source}")
    else:
        progress.note(f"a batch has at most {limits.tokens:,} tokens in {limits.rows} rows, {budget.source}")
    if on_gpu:
        report_memory(config, format, limits, sources.max_tokens, serving, progress)
    return limits


def _int8_tolerance(sources: ModelSources, options: ExportOptions, format: WeightFormat) -> Tolerance:
    """Return the format's tolerance with `int8.max_error`, if it is set."""
    max_error = options.int8.max_error
    return format.tolerance if max_error is None else sources.task.limit_error(format.tolerance, max_error)


def _read_calibration(options: ExportOptions, format: WeightFormat) -> CalibrationTexts | None:
    if format.needs_calibration:
        return read_calibration(options.int8.calibration)
    if options.int8 != Int8Options():
        raise ExportError("calibration texts and max_error apply to precision int8 on device cpu only; leave them out")
    return None


def _read_evaluation(options: ExportOptions) -> RetrievalSet | None:
    if options.evaluation.folder is not None:
        return read_retrieval_set(options.evaluation.folder)
    if options.evaluation.max_ndcg_loss is not None:
        raise ExportError("max_ndcg_loss needs an evaluation folder, a retrieval set in BEIR's layout")
    return None


def _manifest_fields(
    sources: ModelSources, options: ExportOptions, limits: BatchLimits, version: int
) -> ManifestFields:
    return ManifestFields(
        max_tokens=sources.max_tokens,
        vocabulary_size=sources.checkpoint.config.vocabulary,
        tokenizer=TokenizerIdentity(sha256=sources.tokenizer.sha256, origin=options.model.public_name),
        precision=options.precision,
        load=limits.recommended_load(sources.max_tokens, options.serving.instances),
        model_version=version,
    )
