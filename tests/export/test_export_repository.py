"""Complete exports: the resulting repository, also after failures, races and kills."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from forked_exports import ExportForks, tiny_options
from google.protobuf import text_format
from peft_adapters import peft_truth, write_adapter
from tiny_checkpoint import TinyCheckpoint, write_checkpoint, write_json
from tritonclient.grpc import model_config_pb2 as triton
from written_graph import min_cosine, official_vectors, random_rows

from qwen3_triton.client import EmbeddingManifest, ExportRecord, Manifest, ParityReport, Precision, RecommendedLoad
from qwen3_triton.client.manifest import ModelFolder
from qwen3_triton.client.manifest.integrity import find_changed_files
from qwen3_triton.client.manifest.packed_tokenizer import unpack_tokenizer
from qwen3_triton.export import (
    AdapterReference,
    Device,
    ExportError,
    ExportOptions,
    ExportResult,
    ModelExistsError,
    ParityError,
    ServingOptions,
    SilentProgress,
    SourceReference,
    UnsupportedCheckpointError,
    export_model,
    open_checkpoint,
)
from qwen3_triton.export.artifacts import graph_file
from qwen3_triton.export.formats import Tolerance, table, weight_format
from qwen3_triton.export.graph.rope import RopeTables, compute_rope_tables
from qwen3_triton.export.sources.checkpoint import Checkpoint
from qwen3_triton.export.verification.runtime import WrittenModel

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

ROWS = random_rows([1, 6, 30])


def read_record(folder: ModelFolder) -> ExportRecord:
    return ExportRecord.from_json(folder.manifest.read_text(encoding="utf-8"))


def read_manifest(folder: ModelFolder) -> EmbeddingManifest:
    manifest = read_record(folder).manifest
    assert isinstance(manifest, EmbeddingManifest)
    return manifest


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


DESCRIPTION = ["config.pbtxt", "manifest.json", "tokenizer.json"]


def assert_complete(folder: ModelFolder, version: int = 1) -> None:
    """Assert that `version` is in use, that one version is kept before it, and that both are complete."""
    versions = [number for number in (version - 1, version) if number]
    assert folder.versions() == versions
    graph = ["batchstrategy.so", "model.onnx", "model.onnx.data"]
    expected = [f"{number}/{name}" for number in versions for name in [*graph, *DESCRIPTION]]
    assert sorted(files_of(folder.path)) == sorted([*expected, *DESCRIPTION])
    assert [file.read_bytes() for file in folder.files] == [file.read_bytes() for file in folder.version(version).files]
    config = text_format.Parse(folder.config.read_text(encoding="utf-8"), triton.ModelConfig())
    assert Manifest.from_json(config.parameters["manifest"].string_value) == read_manifest(folder)
    assert read_manifest(folder).model_version == version
    assert list(config.version_policy.specific.versions) == [version]
    assert find_changed_files(folder, read_record(folder)) == []
    for number in versions:
        assert np.isfinite(WrittenModel(folder.graph(number), threads=1).run(ROWS)).all()


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export with an adapter and other options than the defaults."""

    source: Path
    adapter: Path
    result: ExportResult


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    source = write_checkpoint(folder / "tiny")
    write_json(source / "config_sentence_transformers.json", {"prompts": {"query": "Instruct: Find the law\nQuery:"}})
    adapter = write_adapter(folder / "adapter", source)
    options = ExportOptions(
        model=SourceReference(str(source)),
        adapters=(AdapterReference(SourceReference(str(adapter)), 1.0),),
        repository=folder / "repository",
        instruction='Find the 東京 "law"',
        max_tokens=100,
        serving=ServingOptions(max_batch_rows=5, queue_delay_us=77, instances=2),
    )
    return Exported(source, adapter, export_model(options))


def test_written_model_equals_peft(exported: Exported) -> None:
    truth = peft_truth(exported.source, exported.adapter, ROWS)
    vectors = WrittenModel(exported.result.folder.graph(1), threads=1).run(ROWS)
    assert min_cosine(vectors, truth.forward) >= 0.999999
    assert min_cosine(vectors, official_vectors(exported.source, ROWS)) < 0.999


def test_repository_is_complete(exported: Exported) -> None:
    result = exported.result
    assert (result.name, result.version) == ("tiny", 1)
    assert_complete(result.folder)
    assert [entry.name for entry in result.folder.path.parent.iterdir()] == ["tiny"]
    assert sum(file.stat().st_size for file in result.folder.path.rglob("*") if file.is_file()) == result.bytes_written
    assert result.folder.tokenizer.read_bytes() == (exported.source / "tokenizer.json").read_bytes()


def test_manifest_describes_the_export(exported: Exported) -> None:
    manifest = read_manifest(exported.result.folder)
    assert manifest == exported.result.manifest
    assert manifest.dimension == 40
    assert manifest.min_dimension == 32
    config = text_format.Parse(exported.result.folder.config.read_text(encoding="utf-8"), triton.ModelConfig())
    budget = int(config.parameters["max_batch_tokens"].string_value)
    assert manifest.load == RecommendedLoad(request_tokens=budget, tokens_in_flight=2 * 2 * budget)
    assert manifest.max_tokens == 100
    assert manifest.vocabulary_size == 300
    assert manifest.end_token_id == 278
    assert manifest.precision is Precision.FP32
    assert manifest.prompts.query == "Instruct: {instruction}\nQuery:{text}"
    assert manifest.prompts.default_instruction == 'Find the 東京 "law"'
    digest = hashlib.sha256((exported.source / "tokenizer.json").read_bytes()).hexdigest()
    assert manifest.tokenizer.sha256 == digest
    record = read_record(exported.result.folder)
    [adapter] = record.adapters
    assert (adapter.reference, adapter.weight) == (str(exported.adapter), 1.0)
    weights = (exported.adapter / "adapter_model.safetensors").read_bytes()
    [merge] = record.merges
    assert (merge.adapter, merge.changed, merge.unchanged) == (str(exported.adapter), 14, 0)
    assert 0 < merge.smallest < merge.relative_change < merge.largest
    assert adapter.sha256 == hashlib.sha256(hashlib.sha256(weights).digest()).hexdigest()
    weights = (exported.source / "model.safetensors").read_bytes()
    assert record.checkpoint.sha256 == hashlib.sha256(hashlib.sha256(weights).digest()).hexdigest()
    report = record.parity
    assert isinstance(report, ParityReport)
    assert report.passed
    assert report.texts >= 30
    assert report.longest_tokens == 100
    assert 0.999999 <= report.min_cosine <= report.mean_cosine <= 1.0000001
    assert report.batched_bit_identical


def test_serving_options_reach_the_config(exported: Exported) -> None:
    config = text_format.Parse(exported.result.folder.config.read_text(encoding="utf-8"), triton.ModelConfig())
    assert config.name == "tiny"
    assert config.max_batch_size == 5
    assert config.dynamic_batching.max_queue_delay_microseconds == 77
    assert config.instance_group[0].count == 2


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_model_with_one_layer_and_no_end_token(tmp_path: Path, precision: Precision) -> None:
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(layers=1, end_token=False, hidden=24))
    options = dataclasses.replace(tiny_options(source, tmp_path / "repository"), precision=precision)
    result = export_model(options)
    manifest, report = read_manifest(result.folder), result.record.parity
    assert manifest.end_token_id is None
    assert manifest.min_dimension == 24
    assert isinstance(report, ParityReport)
    assert 1 - report.min_cosine <= weight_format(precision, Device.CPU).tolerance.cosine
    assert_complete(result.folder)


def test_existing_model_is_rejected_before_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "repository" / "model").mkdir(parents=True)
    with pytest.raises(ModelExistsError, match="overwrite it"):
        export_model(tiny_options(tmp_path / "nothing", tmp_path / "repository"))


def test_overwrite_writes_the_next_version(tmp_path: Path, tiny_source: Path) -> None:
    repository = tmp_path / "repository"
    export_model(tiny_options(tiny_source, repository))
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(seed=9))
    for version in (2, 3):
        result = export_model(tiny_options(other, repository, overwrite=True))
        assert result.version == version
        assert_complete(result.folder, version)
    vectors = WrittenModel(result.folder.graph(3), threads=1).run(ROWS)
    assert min_cosine(vectors, official_vectors(other, ROWS)) >= 0.999999


def require_impossible_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a tolerance for fp32 that no cosine can reach."""
    row = (Precision.FP32, Device.CPU)
    tolerance = Tolerance(cosine=-0.1, score=-0.1)
    monkeypatch.setitem(table.FORMATS, row, dataclasses.replace(table.FORMATS[row], tolerance=tolerance))


def test_failed_parity_writes_nothing(tmp_path: Path, tiny_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    require_impossible_parity(monkeypatch)
    with pytest.raises(ParityError, match="parity failed, nothing was written") as caught:
        export_model(tiny_options(tiny_source, repository))
    assert isinstance(caught.value.report, ParityReport)
    assert caught.value.report.cosine_tolerance == -0.1
    assert caught.value.report.min_cosine >= 0.999999
    assert list(repository.iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["repository"]


def test_failed_parity_keeps_the_old_model(tmp_path: Path, tiny_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    folder = export_model(tiny_options(tiny_source, repository)).folder
    before = files_of(repository)
    require_impossible_parity(monkeypatch)
    with pytest.raises(ParityError):
        export_model(tiny_options(tiny_source, repository, overwrite=True))
    assert files_of(repository) == before
    assert_complete(folder)


def test_wrong_graph_fails_parity(tmp_path: Path, tiny_source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parity fails for wrong rope tables."""

    def shifted(checkpoint: Checkpoint, positions: int) -> RopeTables:
        tables = compute_rope_tables(checkpoint, positions)
        return dataclasses.replace(tables, cos=tables.cos * 0.99)

    monkeypatch.setattr(graph_file, "compute_rope_tables", shifted)
    with pytest.raises(ParityError) as caught:
        export_model(tiny_options(tiny_source, tmp_path / "repository"))
    assert isinstance(caught.value.report, ParityReport)
    assert caught.value.report.min_cosine < 0.999999
    assert list((tmp_path / "repository").iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "with space", "ü"])
def test_invalid_names_are_rejected(tmp_path: Path, tiny_source: Path, name: str) -> None:
    options = dataclasses.replace(tiny_options(tiny_source, tmp_path / "repository"), name=name or "-")
    with pytest.raises(ExportError, match="is not a valid model name"):
        export_model(options)


@pytest.mark.parametrize("tokens", [1, 257])
def test_max_tokens_outside_the_positions_is_rejected(tmp_path: Path, tiny_source: Path, tokens: int) -> None:
    options = dataclasses.replace(tiny_options(tiny_source, tmp_path / "repository"), max_tokens=tokens)
    with pytest.raises(UnsupportedCheckpointError, match=f"max_tokens {tokens}: must be 2 to 256"):
        export_model(options)


@pytest.mark.parametrize("tokens", [2, 256])
def test_smallest_and_largest_max_tokens(tmp_path: Path, tiny_source: Path, tokens: int) -> None:
    options = dataclasses.replace(tiny_options(tiny_source, tmp_path / "repository"), max_tokens=tokens)
    record = export_model(options).record
    assert (record.manifest.max_tokens, record.verified_tokens) == (tokens, tokens)


def test_default_max_tokens_comes_from_the_checkpoint(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    options = dataclasses.replace(tiny_options(source, tmp_path / "repository"), max_tokens=None)
    assert export_model(options).manifest.max_tokens == 256
    write_json(source / "sentence_bert_config.json", {"max_seq_length": 60})
    assert export_model(dataclasses.replace(options, overwrite=True)).manifest.max_tokens == 60


def test_sliding_window_is_rejected_only_beyond_the_window(tmp_path: Path) -> None:
    windowed = {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 0}
    source = write_checkpoint(tmp_path / "tiny", TinyCheckpoint(config_changes=windowed))
    options = dataclasses.replace(tiny_options(source, tmp_path / "repository"), max_tokens=41)
    with pytest.raises(UnsupportedCheckpointError, match=r"sliding window of 40 tokens.*max_tokens 40 or less"):
        export_model(options)
    result = export_model(dataclasses.replace(options, max_tokens=40))
    rows = random_rows([1, 40])
    vectors = WrittenModel(result.folder.graph(1), threads=1).run(rows)
    assert min_cosine(vectors, official_vectors(source, rows)) >= 0.999999


@pytest.fixture(scope="module")
def forks() -> Iterator[ExportForks]:
    opened = ExportForks.open()
    yield opened
    opened.close()


def stale(tmp_path: Path) -> list[str]:
    return [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]


@pytest.mark.slow
def test_killed_at_random_moments(forks: ExportForks, tmp_path: Path, tiny_source: Path) -> None:
    durations_s = []
    for number in range(3):
        started = time.monotonic()
        assert forks.join(forks.start(tiny_source, tmp_path / "measured" / str(number))) == 0
        durations_s.append(time.monotonic() - started)
    rng = random.Random(11)
    kills, outcomes, leftovers = 16, [], 0
    for number in range(kills):
        parent = tmp_path / f"killed-{number}"
        pid = forks.start(tiny_source, parent / "repository")
        time.sleep(min(durations_s) * (number + rng.random()) / kills)
        os.kill(pid, signal.SIGKILL)
        killed = forks.join(pid) == -signal.SIGKILL
        outcomes.append((killed, assert_all_or_nothing(parent / "repository")))
        leftovers += parent.exists() and bool(stale(parent))
        assert forks.join(forks.start(tiny_source, parent / "repository", overwrite=True)) == 0
        assert_complete_and_clean(parent)
    assert sum(killed for killed, _ in outcomes) >= kills // 2
    assert any(killed and not there for killed, there in outcomes)
    assert all(there for killed, there in outcomes if not killed)
    assert leftovers >= 2


def assert_all_or_nothing(repository: Path) -> bool:
    """Assert that the repository is empty or has the complete model, and return which."""
    names = [entry.name for entry in repository.iterdir()] if repository.exists() else []
    assert names in ([], ["model"])
    if names:
        assert_complete(ModelFolder(repository / "model"))
    return bool(names)


def assert_complete_and_clean(parent: Path) -> None:
    """Assert that the model is complete and that nothing is left of the killed export."""
    folder = ModelFolder(parent / "repository" / "model")
    assert_complete(folder, folder.versions()[-1])
    assert [entry.name for entry in parent.iterdir()] == ["repository"]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
def test_killed_at_every_stage(forks: ExportForks, tmp_path: Path, tiny_source: Path, overwrite: bool) -> None:
    """Kill an export while it reads, runs the reference, writes tensors, and compares."""
    repository = tmp_path / "repository"
    before: dict[str, str] = {}
    if overwrite:
        export_model(tiny_options(tiny_source, repository))
        before = files_of(repository)
    calls = Calls()
    export_model(tiny_options(tiny_source, tmp_path / "counted" / "repository"), calls)
    writing = next(number for number, call in enumerate(calls.made) if call.startswith("writing"))
    staging = next(number for number, call in enumerate(calls.made) if call.startswith("computing"))
    comparing = next(number for number, call in enumerate(calls.made) if call.startswith("comparing"))
    leftovers = []
    # one of four tensors; the four runs of the comparison write nothing
    killed_at = [0, 1, writing - 1, *range(writing, comparing, 4), comparing, *range(comparing + 5, len(calls.made))]
    for die_at in killed_at:
        pid = forks.start(tiny_source, repository, overwrite=overwrite, die_at=die_at)
        assert forks.join(pid) == -signal.SIGKILL
        leftovers.append(bool(stale(tmp_path)))
        assert (files_of(repository) if repository.exists() else {}) == before
    # a kill leaves a staging folder once it is created, which the next export removes
    assert leftovers == [die_at >= staging for die_at in killed_at]
    assert not leftovers[0]
    assert len(stale(tmp_path)) == 1
    assert forks.join(forks.start(tiny_source, repository, overwrite=overwrite)) == 0
    assert stale(tmp_path) == []
    assert_complete(ModelFolder(repository / "model"), 2 if overwrite else 1)


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize(("die_after", "there"), [("_flush", False), ("_move_in", True)])
def test_killed_around_the_rename(
    forks: ExportForks, tmp_path: Path, tiny_source: Path, overwrite: bool, die_after: str, there: bool
) -> None:
    repository = tmp_path / "repository"
    folder = ModelFolder(repository / "model")
    if overwrite:
        export_model(tiny_options(tiny_source, repository))
    pid = forks.start(tiny_source, repository, overwrite=overwrite, die_after=die_after)
    assert forks.join(pid) == -signal.SIGKILL
    assert len(stale(tmp_path)) == 1
    if there or overwrite:
        assert_complete(folder, 2 if there and overwrite else 1)
    else:
        assert list(repository.iterdir()) == []
    assert forks.join(forks.start(tiny_source, repository, overwrite=True)) == 0
    assert_complete(folder, 1 + there + overwrite)
    assert stale(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("kind", ["adapter", "other"])
def test_killed_merge_or_fusion(
    forks: ExportForks, tmp_path: Path, tiny_source: Path, kind: str, overwrite: bool
) -> None:
    """Kill it while it reads, at the first and the last tensor, and around the rename."""
    adapter = write_adapter(tmp_path / "inputs" / "adapter", tiny_source) if kind == "adapter" else None
    other = write_checkpoint(tmp_path / "inputs" / "other", TinyCheckpoint(seed=4)) if kind == "other" else None
    merge = functools.partial(forks.start, tiny_source, adapter=adapter, other=other)
    whole, output = tmp_path / "whole", tmp_path / "output"
    assert forks.join(merge(whole)) == 0
    before: dict[str, str] = {}
    if overwrite:
        write_checkpoint(output / "model", TinyCheckpoint(seed=5))
        before = files_of(output)
    tensors = 2 + len(open_checkpoint(SourceReference(str(tiny_source))).weights)
    for die_at in (0, 2, tensors - 1):
        assert forks.join(merge(output, overwrite=overwrite, die_at=die_at)) == -signal.SIGKILL
        assert (files_of(output) if output.exists() else {}) == before
    assert forks.join(merge(output, overwrite=overwrite, die_after="_flush")) == -signal.SIGKILL
    assert (files_of(output) if output.exists() else {}) == before
    assert forks.join(merge(output, overwrite=overwrite, die_after="_move_in")) == -signal.SIGKILL
    assert files_of(output) == files_of(whole)
    assert len(stale(tmp_path)) == 1
    assert forks.join(merge(output, overwrite=True)) == 0
    assert files_of(output) == files_of(whole)
    assert stale(tmp_path) == []


class Calls(SilentProgress):
    """Records the calls of the progress."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def stage(self, text: str) -> None:
        self.made.append(text)

    def step(self, done: int, total: int) -> None:
        assert 0 < done <= total
        self.made.append("step")


def test_concurrent_exports_do_not_remove_each_others_staging_folders(
    forks: ExportForks, tmp_path: Path, tiny_source: Path
) -> None:
    repository = tmp_path / "repository"
    pids = [forks.start(tiny_source, repository, name=f"model-{number}") for number in range(4)]
    assert [forks.join(pid) for pid in pids] == [0, 0, 0, 0]
    for number in range(4):
        assert_complete(ModelFolder(repository / f"model-{number}"))
    assert stale(tmp_path) == []


def test_one_of_several_concurrent_exports_of_one_name_succeeds(
    forks: ExportForks, tmp_path: Path, tiny_source: Path
) -> None:
    """One export succeeds, the others fail, and the model is complete."""
    repository = tmp_path / "repository"
    pids = [forks.start(tiny_source, repository) for _ in range(3)]
    assert sorted(forks.join(pid) for pid in pids) == [0, 1, 1]
    assert_complete(ModelFolder(repository / "model"))
    assert stale(tmp_path) == []


def test_manifest_is_readable_json(exported: Exported) -> None:
    text = exported.result.folder.manifest.read_text(encoding="utf-8")
    assert "東京" in text
    assert json.loads(text)["schema_version"] == 1


def test_served_configuration_has_the_tokenizer_and_no_local_paths(exported: Exported) -> None:
    """Clients and everybody else who may ask the server for the configuration see it."""
    folder = exported.result.folder
    text = folder.config.read_text(encoding="utf-8")
    config = text_format.Parse(text, triton.ModelConfig())
    assert unpack_tokenizer(config.parameters["tokenizer.json.xz"].string_value) == folder.tokenizer.read_bytes()
    assert read_manifest(folder).tokenizer.origin == "tiny"
    assert str(exported.source.parent) not in text
    assert str(exported.source.parent) in folder.manifest.read_text(encoding="utf-8")
