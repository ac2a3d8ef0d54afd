"""`qwen3-triton export` and `merge` as a user runs them: exit status, one line on stderr, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from peft_adapters import write_adapter
from retrieval_sets import write_set
from tiny_checkpoint import TinyCheckpoint, write_checkpoint
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from qwen3_triton.cli import main
from qwen3_triton.client.manifest import Manifest, ModelFolder, RerankManifest

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # from transformers, about a name that PEFT uses

RERANKER = TinyCheckpoint(layout="Qwen3ForSequenceClassification", end_token=False, max_positions=512)
COMMAND = Path(sys.executable).with_name("qwen3-triton")


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a command."""

    returncode: int
    stdout: str
    stderr: str


Runner = Callable[..., Result]


def run(*arguments: object, cwd: Path) -> Result:
    """Run the installed command."""
    completed = subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Result(completed.returncode, completed.stdout, completed.stderr)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    """Return a function that runs the command in this process, because importing torch takes seconds."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [COMMAND.name, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as completed:
            main.run()
        captured = capsys.readouterr()
        return Result(int(completed.value.code or 0), captured.out, captured.err)

    return run_here


def assert_one_error_line(result: Result, *, holding: str) -> None:
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert holding in errors[0]
    assert "Traceback" not in result.stderr
    assert "unexpected" not in errors[0]


def test_export_prints_what_it_wrote(tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    result = run(
        "export",
        tiny_source,
        "--adapter",
        f"{adapter}=0.5",
        "--max-tokens",
        64,
        "--max-batch-rows",
        9,
        "--queue-delay-us",
        50,
        "--max-queue-size",
        700,
        "--queue-timeout-ms",
        80,
        "--instances",
        2,
        "--threads",
        1,
        "--query-template",
        "Instruct: {instruction}\nQuery:{text}",
        "--instruction",
        "Find it",
        "--precision",
        "fp16",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    folder = ModelFolder(tmp_path / "model_repository" / "tiny")
    assert folder.versions() == [1]
    assert "wrote model_repository/tiny version 1" in result.stdout
    assert "min cosine 0.9999" in result.stdout
    assert "alone and batched:" in result.stdout
    assert f"adapter {adapter}=0.5: 14 tensors changed, by 0." in result.stdout
    manifest = json.loads(folder.manifest.read_text())
    assert manifest["precision"] == "fp16"
    assert manifest["max_tokens"] == 64
    assert manifest["prompts"]["default_instruction"] == "Find it"
    assert manifest["adapters"][0]["weight"] == 0.5
    config = folder.config.read_text()
    assert "max_batch_size: 9" in config
    assert "max_queue_delay_microseconds: 50" in config
    assert "max_queue_size: 700" in config
    assert "default_timeout_microseconds: 80000" in config
    assert "note: limits of the queue may delay requests by half a second" in result.stderr
    assert "count: 2" in config
    assert 'key: "intra_op_thread_count"\n  value {\n    string_value: "1"' in config
    assert "Traceback" not in result.stderr
    assert "Warning" not in result.stderr


def test_existing_model_is_an_error(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    (tmp_path / "repository" / "tiny").mkdir(parents=True)
    result = here("export", tiny_source, "--repository", "repository")
    assert_one_error_line(result, holding="repository/tiny exists; overwrite it")


def test_max_tokens_beyond_the_positions_is_an_error(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    result = here("export", tiny_source, "--max-tokens", 257)
    assert_one_error_line(result, holding="max_tokens 257: must be 2 to 256")
    assert not (tmp_path / "model_repository").exists()


def test_panic_of_a_library_is_one_line(here: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    monkeypatch.setattr(main, "app", lambda: tokenizer.encode("x" * 90))
    result = here("export", "model")
    assert result.returncode == 1
    assert result.stderr.startswith("error: unexpected PanicError: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("model", ["no-such-folder", "./no/such/folder"])
def test_missing_model_is_an_error(here: Runner, model: str) -> None:
    assert_one_error_line(here("export", model, "--name", "x"), holding=f"'{model}' is neither a directory")


def test_hub_id_without_a_network_is_a_one_line_error(tmp_path: Path) -> None:
    result = run("export", "acme/no-such-model@v1", "--name", "x", cwd=tmp_path)
    assert_one_error_line(
        result, holding="'acme/no-such-model@v1' is not a local directory and could not be downloaded"
    )


def test_invalid_adapter_weight_is_an_error(here: Runner, tiny_source: Path) -> None:
    result = here("export", tiny_source, "--adapter", "some/where=heavy")
    assert_one_error_line(result, holding="'heavy' is not a number; write DIR or DIR=WEIGHT")


def test_reranker_export_prints_its_parity(here: Runner, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", RERANKER)
    result = here("export", source, "--max-tokens", "400", "--template", "blank-line", "--instruction", "Find it")
    assert result.returncode == 0
    assert "note: exporting a reranker, because it has a score head; set the task to embed for an embedding model" in (
        result.stderr
    )
    assert "20 pairs" not in result.stderr
    assert "parity with transformers" in result.stdout
    assert "largest difference of a score" in result.stdout
    manifest = Manifest.from_json(ModelFolder(tmp_path / "model_repository" / "tiny").manifest.read_text())
    assert isinstance(manifest, RerankManifest)
    assert manifest.prompts.body == "<Instruct>: {instruction}\n\n<Query>: {query}\n\n<Document>: {document}"
    assert manifest.prompts.default_instruction == "Find it"


def test_export_and_inspect_say_that_nothing_was_verified(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    exported = here("export", tiny_source, "--verify", "none", "--max-tokens", "48")
    assert exported.returncode == 0
    assert "computing the reference" not in exported.stderr
    inspected = here("inspect", "tiny")
    assert inspected.returncode == 0
    for result in (exported, inspected):
        assert "not verified: the written graph was not compared with transformers" in result.stdout
        assert "parity" not in result.stdout
    manifest = json.loads(ModelFolder(tmp_path / "model_repository" / "tiny").manifest.read_text())
    assert (manifest["verification"], manifest["parity"]) == ("none", None)


def test_template_of_an_embedding_model_is_an_error(here: Runner, tiny_source: Path) -> None:
    result = here("export", tiny_source, "--template", "line")
    assert_one_error_line(result, holding="a pair template applies to rerankers")


def test_prompt_longer_than_max_tokens_is_an_error(here: Runner, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny", RERANKER)
    result = here("export", source, "--max-tokens", "30")
    assert_one_error_line(result, holding="max_tokens 30: the reranker's prompt alone has")


@pytest.mark.parametrize(
    "arguments",
    [
        ["export"],
        ["export", "x", "--precision", "fp64"],
        ["export", "x", "--device", "tpu"],
        ["export", "x", "--verify", "some"],
        ["export", "x", "--max-tokens", "1"],
        ["export", "x", "--max-tokens", "many"],
        ["export", "x", "--max-batch-rows", "0"],
        ["export", "x", "--no-such-option"],
        ["merge", "x"],
        ["merge", "x", "--output", "y"],
        ["merge", "x", "--output", "y", "--adapter", "a", "--with", "b"],
        ["merge", "x", "--output", "y", "--adapter", "a", "--method", "slerp"],
        ["merge", "x", "--output", "y", "--with", "b", "--method", "median"],
        ["merge", "x", "--output", "y", "--with", "b", "--method", "ties"],
        ["merge", "x", "--output", "y", "--with", "b", "--base", "c"],
        ["merge", "x", "--output", "y", "--adapter", "a", "--base", "c", "--method", "ties"],
        ["merge", "x", "--output", "y", "--base", "c", "--method", "task-arithmetic", "--density", "0.5"],
        ["merge", "x", "--output", "y", "--with", "b", "--lambda", "0.5"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_bad_usage_has_exit_status_2(here: Runner, tmp_path: Path, arguments: list[str]) -> None:
    result = here(*arguments)
    assert result.returncode == 2
    assert "Usage" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_merge_writes_and_refuses_to_overwrite(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny_source)
    arguments = ("merge", tiny_source, "--adapter", adapter, "--output", "out/merged")
    result = here(*arguments)
    assert result.returncode == 0, result.stderr
    assert "wrote out/merged" in result.stdout
    assert f"adapter {adapter}: 14 tensors changed, by 0." in result.stdout
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()
    assert_one_error_line(here(*arguments), holding="out/merged exists; overwrite it")


def test_merge_of_a_mismatched_adapter_is_an_error(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(hidden=48, layers=3))
    adapter = write_adapter(tmp_path / "adapter", other)
    result = here("merge", tiny_source, "--adapter", adapter, "--output", "out/merged")
    assert_one_error_line(result, holding="14 of its 42 keys match no tensor of the base")
    assert not (tmp_path / "out" / "merged").exists()


def test_merge_fuses_checkpoints_by_their_weights(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(seed=4))
    result = here("merge", f"{tiny_source}=3", "--with", f"{other}=0.75", "--with", other, "--output", "fused")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "wrote fused\n"
    assert f"note: the result differs from {tiny_source} (share 0.632) by 0." in result.stderr
    assert f"note: the result differs from {other} (share 0.158) by " in result.stderr
    linear = here("merge", tiny_source, "--with", other, "--method", "linear", "--output", "linear")
    assert linear.returncode == 0, linear.stderr


def test_merge_fuses_changes_since_a_base(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(seed=4))
    common = ("merge", f"{other}=0.5", "--base", tiny_source)
    result = here(*common, "--method", "task-arithmetic", "--lambda", "0.4", "--output", "scaled")
    assert result.returncode == 0, result.stderr
    assert f"note: the result differs from {other} (weight 0.5) by " in result.stderr
    assert f"note: the result differs from {tiny_source} (base) by " in result.stderr
    ties = here(*common, "--with", tiny_source, "--method", "ties", "--density", "0.3", "--output", "ties")
    assert ties.returncode == 0, ties.stderr


def test_merge_of_another_model_is_an_error(here: Runner, tmp_path: Path, tiny_source: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TinyCheckpoint(theta=1e6))
    result = here("merge", tiny_source, "--with", other, "--output", "fused")
    assert_one_error_line(result, holding="other (rope_theta is 1000000.0 instead of 10000.0)")
    assert not (tmp_path / "fused").exists()


def test_int8_export_prints_calibration_error_and_size(tmp_path: Path, tiny_source: Path, here: Runner) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("the capital of the country\nthe query and the document\n", encoding="utf-8")
    common = ("export", tiny_source, "--precision", "int8", "--max-tokens", "64", "--calibration", texts)
    result = here(*common, "--max-int8-error", "0.05", "--name", "small")
    assert result.returncode == 0, result.stderr
    assert "int8, calibrated with 2 texts" in result.stdout
    assert "held-out texts: min cosine 0.9" in result.stdout
    assert "(required: 0.95)" in result.stdout
    assert "fp32 layers: none (0.0% of the multiply-adds)" in result.stdout
    assert "times fp32" in result.stdout
    failed = here(*common, "--max-int8-error", "0.000001", "--name", "strict")
    assert_one_error_line(failed, holding="int8 is too far from fp32, nothing was written")
    assert not (tmp_path / "model_repository" / "strict").exists()


@pytest.mark.parametrize("arguments", [("--calibration", "none.txt"), ("--max-int8-error", "0.5")], ids=str)
def test_int8_options_need_int8(tiny_source: Path, here: Runner, arguments: tuple[str, str]) -> None:
    result = here("export", tiny_source, "--max-tokens", "64", *arguments)
    assert_one_error_line(result, holding="calibration texts and max_error apply to precision int8")


def test_invalid_calibration_line_is_named(tmp_path: Path, tiny_source: Path, here: Runner) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\nb\n', encoding="utf-8")
    result = here("export", tiny_source, "--precision", "int8", "--calibration", "texts.jsonl")
    assert_one_error_line(result, holding="calibration texts texts.jsonl: line 2 is not a JSON object")
    assert not (tmp_path / "model_repository").exists()


def test_evaluation_prints_both_ndcg_values(tmp_path: Path, tiny_source: Path, here: Runner) -> None:
    folder = write_set(tmp_path / "set", "q1\td0\t1\nq2\td5\t2\n")
    common = ("export", tiny_source, "--max-tokens", "64", "--name", "judged")
    result = here(*common, "--evaluation", folder, "--max-ndcg-loss", "0.005")
    assert result.returncode == 0, result.stderr
    assert f"retrieval over {folder}: 2 queries, 24 documents" in result.stdout
    assert " in fp32, 0." in result.stdout
    assert "0.0000, 0.005 allowed)" in result.stdout
    assert "evaluating retrieval with transformers fp32" in result.stderr
    assert_one_error_line(here(*common, "--max-ndcg-loss", "0.1"), holding="judged exists")
    assert_one_error_line(here(*common, "--overwrite", "--max-ndcg-loss", "0.1"), holding="needs an evaluation folder")
    (folder / "corpus.jsonl").write_text("{}\n")
    bad = here(*common, "--overwrite", "--evaluation", folder)
    assert_one_error_line(bad, holding='corpus.jsonl:1: must be a JSON object with "_id" and "text"')
