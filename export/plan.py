"""What an export would write, and the memory and disk that it needs, from config and options alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..client.manifest import ModelFolder
from .architectures import DecoderConfig
from .artifacts.graph_file import assemble_graph
from .artifacts.onnx_file import WRITERS, measure_onnx
from .artifacts.prefix_tables import reserve_tables
from .artifacts.staging import refuse_existing
from .artifacts.versions import next_version
from .batching.library import library_file
from .formats import WeightFormat, weight_format
from .graph_choice import graph_options, opens_graph
from .model_sources import ModelSources, open_sources
from .option_checks import check_options, model_name
from .options import ExportOptions
from .progress import Progress, SilentProgress
from .verification.lengths import longest_text
from .verification.reference import BATCH_TOKENS
from .verification.written_check import needs_twin

_LIBRARIES = 480_000_000
"""Resident bytes of Python, torch and what else is imported."""
_COPIES = 3
"""A matrix that is written is in memory as it is stored, transposed, and in parts before it is rounded."""
_FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """A file that an export would write."""

    path: str
    """Relative to the model's folder."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """What an export would write, and what it needs."""

    folder: ModelFolder
    version: int
    files: tuple[PlannedFile, ...]
    """The large files, with their exact sizes if no layer of an int8 model stays in fp32; without `config.pbtxt` and
    `manifest.json`, which have a few kilobytes besides the tokenizer."""
    scratch_bytes: int
    """Intermediate files, which are removed."""
    memory_bytes: int
    """Estimated peak of resident memory, without that of `graph_bytes`, for weights of the usual scale."""
    graph_bytes: int
    """Size of the written model that ONNX Runtime opens to compare or to time it; 0 if it is not opened. It takes at
    least that much memory, unless that is more than half of what is available: then weights stay in the file."""

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return sum(file.bytes for file in self.files)

    @property
    def disk_bytes(self) -> int:
        """Disk space needed during the export."""
        return self.bytes + self.scratch_bytes


def plan_export(options: ExportOptions, progress: Progress | None = None) -> ExportPlan:
    """Return what `export_model` would write. Reads headers and settings; no weights, and writes nothing.

    Raises:
        ExportError: As by `export_model`, for everything that can be known before weights are read.
    """
    progress = progress or SilentProgress()
    check_options(options)
    format = weight_format(options.precision, options.device)
    folder = ModelFolder(options.repository / model_name(options))
    refuse_existing(folder.path, overwrite=options.overwrite)
    progress.stage(f"reading {options.model}")
    sources = open_sources(options, progress)
    version = next_version(folder)
    lowered = format.planned(sources.checkpoint)
    graph = graph_options(sources, lowered, options)
    model = assemble_graph(lowered.checkpoint, graph)
    reserve_tables(model, graph.prefixes)
    sizes = measure_onnx(model, folder.graph(version).name)
    twin = options.verify.compares and graph.cuda is not None and needs_twin(format, graph.cuda)
    elements = _elements(sources.checkpoint.config)
    return ExportPlan(
        folder=folder,
        version=version,
        files=tuple(_files(folder, version, sizes.graph, sizes.data, sources, options)),
        scratch_bytes=_FP32_BYTES * elements * int(twin),
        memory_bytes=_memory(sources, options, format),
        graph_bytes=(_FP32_BYTES * elements if twin else sizes.data) if opens_graph(options) else 0,
    )


def _files(
    folder: ModelFolder, version: int, graph: int, data: int, sources: ModelSources, options: ExportOptions
) -> Sequence[PlannedFile]:
    tokenizer = len(sources.tokenizer.content)
    sizes: dict[Path, int] = {
        folder.graph(version): graph,
        folder.graph(version).with_name(f"{folder.graph(version).name}.data"): data,
        folder.tokenizer: tokenizer,
        folder.version(version).tokenizer: tokenizer,
    }
    if options.serving.token_budget:
        library = library_file(options.serving.server_architecture)
        sizes[folder.batch_strategy(version)] = library.stat().st_size
    return [PlannedFile(path=str(file.relative_to(folder.path)), bytes=size) for file, size in sizes.items()]


def _elements(config: DecoderConfig) -> int:
    return config.multiply_adds + config.vocabulary * config.hidden


def _memory(sources: ModelSources, options: ExportOptions, format: WeightFormat) -> int:
    """Return the larger of what the writer needs, and what layers need that run in fp32 over texts."""
    config = sources.checkpoint.config
    largest = config.hidden * max(config.intermediate, config.query_width + 2 * config.kv_width)
    # a matrix of which no rows can be read alone is also in memory in fp32
    whole = any(tensor.load_rows is None for tensor in sources.checkpoint.weights.values())
    written = WRITERS * (_COPIES * format.activation_bytes + (_FP32_BYTES if whole else 0)) * largest
    if not (options.verify.compares or format.needs_calibration):
        return _LIBRARIES + written
    layers = (3 if format.needs_calibration else 2) * config.multiply_adds // config.layers
    padded = max(map(len, sources.task.probe_rows(sources.max_tokens)))
    per_token = 6 * config.hidden + 4 * config.intermediate + 4 * config.query_width
    # a mask of padding needs the attention weights of every token to every other
    batch = BATCH_TOKENS * (per_token + config.heads * padded)
    alone = longest_text(options.verify, config, sources.max_tokens) * per_token
    return _LIBRARIES + max(written, _FP32_BYTES * (layers + max(batch, alone)))
