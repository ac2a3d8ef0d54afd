"""Exports store the prefixes of the model's prompts, say so, and return the same bits as without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from official_reranker import INSTRUCTION, PREFIX
from sentence_models import BIDIRECTIONAL, LAST, MEAN, SentenceModel
from test_reranker import TINY as TINY_RERANKER
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from tokenizers import Tokenizer
from typer.testing import CliRunner
from written_graph import Vectors

from qwen3_triton.cli.main import app
from qwen3_triton.client import EmbeddingManifest, PairPrompts, Precision, Verification
from qwen3_triton.client.prompts import prompt_documents, prompt_pairs, prompt_queries
from qwen3_triton.export import (
    Device,
    ExportError,
    ExportOptions,
    ExportResult,
    SourceReference,
    UnsupportedCheckpointError,
    export_model,
    plan_export,
)
from qwen3_triton.export.graph.summation import longest_prefix
from qwen3_triton.export.sources.checkpoint import open_checkpoint
from qwen3_triton.export.tasks.prefixes import common_beginning, prompt_beginnings
from qwen3_triton.export.verification.runtime import WrittenModel

QWEN3 = Path(__file__).parents[3] / "shared" / "tokenizers" / "qwen3" / "tokenizer.json"
QUERY = "Instruct: {instruction}\nQuery:{text}"
FIRST, SECOND = "find the answer", "find the duplicate of this question"
TEXTS = ["the capital", "a", "", "7 of 9", " spaced", "the query and the document, the answer and the text " * 3]
MAX_TOKENS = 256


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny", TinyCheckpoint())


def options_for(source: Path, repository: Path, **changes: object) -> ExportOptions:
    options = ExportOptions(
        model=SourceReference(str(source)), repository=repository, name="model", max_tokens=MAX_TOKENS
    )
    return dataclasses.replace(options, **changes)  # type: ignore[arg-type]


def export_embedding(source: Path, repository: Path, **changes: object) -> ExportResult:
    given = {"query_template": QUERY, "instruction": FIRST, "further_instructions": (SECOND,)}
    return export_model(options_for(source, repository, **given | changes))


def query_rows(result: ExportResult) -> list[list[int]]:
    """Queries with either instruction and another one, and documents, as the client sends them."""
    manifest = result.manifest
    assert isinstance(manifest, EmbeddingManifest)
    tokenizer, prompts = Tokenizer.from_file(str(result.folder.tokenizer)), manifest.prompts
    texts = [text for given in (None, SECOND, "another one") for text in prompt_queries(prompts, TEXTS, given)]
    return [encoding.ids for encoding in tokenizer.encode_batch([*texts, *prompt_documents(prompts, TEXTS)])]


def run(result: ExportResult, rows: Sequence[Sequence[int]]) -> Vectors:
    return WrittenModel(result.folder.graph(result.version), threads=1).run(rows)


def shares_beginnings(result: ExportResult) -> bool:
    """Whether the rows of a batch compute tokens that they begin with once."""
    model = onnx.load(result.folder.graph(result.version), load_external_data=False)
    return any("shared" in node.name for node in model.graph.node)


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_queries_have_the_bits_of_an_export_without_reuse(source: Path, tmp_path: Path, precision: Precision) -> None:
    reusing = export_embedding(source, tmp_path / "reusing", precision=precision)
    plain = export_embedding(
        source, tmp_path / "plain", precision=precision, prefix_reuse=False, further_instructions=()
    )
    assert plain.record.prefixes == ()
    texts = [prefix.text for prefix in reusing.record.prefixes]
    assert sorted(texts) == sorted(["Instruct:", *(f"Instruct: {given}\nQuery:" for given in (FIRST, SECOND))])
    rows = query_rows(reusing)
    assert np.array_equal(run(reusing, rows), run(plain, rows))
    assert shares_beginnings(reusing)
    assert not shares_beginnings(plain)
    assert reusing.record.parity == plain.record.parity


def test_a_plan_has_the_sizes_of_the_tables(source: Path, tmp_path: Path) -> None:
    options = options_for(source, tmp_path, query_template=QUERY, instruction=FIRST, verify=Verification.NONE)
    plan = plan_export(options)
    folder = export_model(options).folder
    assert plan.files
    for file in plan.files:
        assert (folder.path / file.path).stat().st_size == file.bytes


def test_two_exports_have_the_same_tables(source: Path, tmp_path: Path) -> None:
    options = [
        options_for(source, tmp_path / name, query_template=QUERY, instruction=FIRST, verify=Verification.NONE)
        for name in ("first", "second")
    ]
    graphs = [export_model(given).folder.graph(1) for given in options]
    for files in zip(*(sorted(graph.parent.glob("model.onnx*")) for graph in graphs), strict=True):
        assert files[0].read_bytes() == files[1].read_bytes()


def test_pairs_have_the_bits_of_an_export_without_reuse(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", TINY_RERANKER)
    reusing = export_model(options_for(source, tmp_path / "reusing", max_tokens=420))
    plain = export_model(options_for(source, tmp_path / "plain", max_tokens=420, prefix_reuse=False))
    # this tokenizer has more tokens than the tables hold
    [stored] = reusing.record.prefixes
    assert stored.tokens == longest_prefix(open_checkpoint(SourceReference(str(source))).config) == 120
    assert PREFIX.startswith(stored.text)
    prompts = reusing.manifest.prompts
    assert isinstance(prompts, PairPrompts)
    tokenizer = Tokenizer.from_file(str(reusing.folder.tokenizer))
    bodies = [body for given in (None, SECOND) for body in prompt_pairs(prompts, TEXTS, TEXTS[::-1], given)]
    parts = [[prompts.prefix, body, prompts.suffix] for body in bodies]
    rows = [[token for part in row for token in tokenizer.encode(part, add_special_tokens=False).ids] for row in parts]
    assert shares_beginnings(reusing)
    scores = run(reusing, rows)
    assert np.array_equal(scores, run(plain, rows))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("model", "config"),
    [(SentenceModel(pooling=MEAN), {}), (SentenceModel(pooling=LAST), BIDIRECTIONAL)],
    ids=["mean pooling", "bidirectional attention"],
)
def test_graphs_whose_states_depend_on_the_rest_store_none(
    tmp_path: Path, model: SentenceModel, config: dict[str, object]
) -> None:
    source = model.write(tmp_path / "tiny", TinyCheckpoint(config_changes=config))
    result = export_embedding(source, tmp_path / "repository", further_instructions=())
    assert result.record.prefixes == ()
    assert not shares_beginnings(result)
    with pytest.raises(UnsupportedCheckpointError, match="leave further instructions and prefixes out"):
        export_embedding(source, tmp_path / "second")


def test_a_prefix_leaves_two_tokens_of_the_longest_row(source: Path, tmp_path: Path) -> None:
    options = options_for(source, tmp_path / "first", query_template=QUERY, instruction=FIRST)
    longest = export_model(options).record.prefixes[-1].tokens
    for spare, stored in ((1, longest - 1), (2, longest)):
        shorter = dataclasses.replace(options, repository=tmp_path / str(spare), max_tokens=longest + spare)
        assert export_model(shorter).record.prefixes[-1].tokens == stored


def test_a_gpu_model_takes_one_instruction(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="further instructions only choose what a model for device cpu stores"):
        export_embedding(source, tmp_path, device=Device.CUDA, precision=Precision.FP16)
    with pytest.raises(ExportError, match="leave them out"):
        export_embedding(source, tmp_path, prefix_reuse=False)


def test_clients_with_their_own_prompts_name_prefixes_by_ids(source: Path, tmp_path: Path) -> None:
    ids = (7, 8, 9, 10, 11)
    result = export_embedding(source, tmp_path / "repository", prefixes=(ids,))
    assert len(ids) in [prefix.tokens for prefix in result.record.prefixes]
    with pytest.raises(ExportError, match="prefixes: id 300 is not in the vocabulary of 300 ids"):
        export_embedding(source, tmp_path / "unknown", prefixes=((4, 300, 5, 6),))


def test_the_command_takes_several_instructions(source: Path, tmp_path: Path) -> None:
    arguments = ["export", str(source), "--repository", str(tmp_path), "--name", "model", "--query-template", QUERY]
    arguments += ["--instruction", FIRST, "--instruction", SECOND, "--verify", "none", "--max-batch-tokens", "512"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    shown = CliRunner().invoke(app, ["inspect", "model", "--repository", str(tmp_path)])
    assert f"stored tokens, {f'Instruct: {SECOND}' + chr(10) + 'Query:'!r}" in shown.output
    assert f"instruction {FIRST!r}" in " ".join(shown.output.split())


@pytest.mark.skipif(not QWEN3.exists(), reason=f"no {QWEN3}")
def test_prefixes_with_the_vocabulary_of_qwen3() -> None:
    """The last token of a prompt is not stable: `:` merges with the next word."""
    tokenizer = Tokenizer.from_file(str(QWEN3))

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    [_, query] = prompt_beginnings(QUERY, ["text"], [None, INSTRUCTION], tokenize)
    assert tokenizer.decode(list(query)) == f"Instruct: {INSTRUCTION}\nQuery"
    assert len(query) == 18
    body = "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    before = len(tokenize([PREFIX])[0])
    lengths = [before + len(ids) for ids in prompt_beginnings(body, ["query", "document"], [INSTRUCTION], tokenize)]
    assert lengths == [43, 60]
    assert prompt_beginnings("{text}", ["text"], [], tokenize) == [()]


def test_common_beginning() -> None:
    assert common_beginning([[1, 2, 3], [1, 2, 4], [1, 2]]) == (1, 2)
    assert common_beginning([[1], []]) == ()
