"""Reading and writing of records, and errors for malformed ones."""

from __future__ import annotations

import dataclasses
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_record import sample_record

from benchmarks.record import TokenizerInfo
from benchmarks.record_file import (
    SUFFIX,
    InvalidRecordError,
    RecordFile,
    read_json,
    read_record,
    record_files,
    write_record,
)

_RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d{6}-[\w.-]+?\.json(?:\.xz)?\b")


def test_record_is_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "record.json"
    write_record(sample_record(), file)
    assert read_record(file) == sample_record()


def test_compressed_and_plain_records_are_read(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("2.json", f"1{SUFFIX}")]
    for file in files:
        write_record(sample_record(), file)
        assert read_record(file) == sample_record()
    assert record_files(tmp_path) == files[::-1]
    plain, compressed = (file.read_bytes() for file in files)
    assert compressed != plain == read_json(files[1])


def test_record_of_a_run_in_progress_is_replaced(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / f"1{SUFFIX}")
    for record in (dataclasses.replace(sample_record(), loads=()), sample_record()):
        file.save(record)
        assert read_record(file.file) == record
    assert record_files(tmp_path) == list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"{}", lzma.compress(b"{}")[:-9]])
def test_damaged_compression_is_rejected_with_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"record{SUFFIX}"
    file.write_bytes(content)
    with pytest.raises(InvalidRecordError, match=r"^record\.json\.xz: not a complete xz file$"):
        read_record(file)


def test_served_tokenizer_is_optional(tmp_path: Path) -> None:
    record = dataclasses.replace(sample_record(), served_tokenizer=TokenizerInfo(sha256="0f", vocabulary=9))
    write_record(record, tmp_path / "with.json")
    assert read_record(tmp_path / "with.json") == record
    raw = json.loads((tmp_path / "with.json").read_text(encoding="utf-8"))
    del raw["served_tokenizer"]
    (tmp_path / "without.json").write_text(json.dumps(raw), encoding="utf-8")
    assert read_record(tmp_path / "without.json") == sample_record()


def test_record_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_record(sample_record(), file)
    with pytest.raises(FileExistsError):
        write_record(sample_record(), file)


def _remove_sample_time(raw: dict[str, Any]) -> None:
    del raw["comparisons"][0]["entries"][1]["samples"][2]["wall_s"]


def _set_text_as_tokens(raw: dict[str, Any]) -> None:
    raw["comparisons"][0]["workload"]["tokens"] = "100"


def _add_unknown_field(raw: dict[str, Any]) -> None:
    raw["comparisons"][0]["entries"][0]["colour"] = "red"


def _set_unknown_variable(raw: dict[str, Any]) -> None:
    raw["scaling"][0]["variable"] = "heads"


def _set_old_schema(raw: dict[str, Any]) -> None:
    raw["schema_version"] = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_remove_sample_time, r"comparisons\.0\.entries\.1\.samples\.2\.wall_s: Field required"),
        (_set_text_as_tokens, r"comparisons\.0\.workload\.tokens: Input should be a valid integer"),
        (_add_unknown_field, r"comparisons\.0\.entries\.0\.colour: Unexpected"),
        (_set_unknown_variable, r"scaling\.0\.variable: Input should be 'rows of 64 tokens'"),
        (_set_old_schema, r"schema_version: schema 2 is not supported, this version reads schema 3"),
    ],
)
def test_error_names_file_field_and_problem(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "record.json"
    write_record(sample_record(), file)
    raw = json.loads(file.read_text(encoding="utf-8"))
    change(raw)
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(InvalidRecordError, match=rf"^record\.json: {message}") as caught:
        read_record(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 3}', '"text"'])
def test_other_content_is_rejected_with_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidRecordError, match=r"^record\.json: \S") as caught:
        read_record(file)
    assert "\n" not in str(caught.value)


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecordError, match=r"^record\.json: No such file"):
        read_record(tmp_path / "record.json")


def test_all_results_are_readable(project_root: Path) -> None:
    files = record_files(project_root / "benchmarks" / "results")
    assert files
    for file in files:
        record = read_record(file)
        parts = (record.comparisons, record.overload, record.batching, record.soak, record.exports, record.client)
        assert any(parts), file.name


def test_results_contain_no_paths_and_no_urls(project_root: Path) -> None:
    for file in record_files(project_root / "benchmarks" / "results"):
        text = read_json(file).decode()
        assert "://" not in text, file.name
        assert not [value for value in _strings(json.loads(text)) if value.startswith(("/", "~"))], file.name


def test_records_that_pages_name_exist(project_root: Path) -> None:
    pages = [project_root / "README.md", *(project_root / "docs").glob("*.md")]
    named = {name for page in pages for name in _RECORD.findall(page.read_text(encoding="utf-8"))}
    assert named
    assert named <= {file.name for file in record_files(project_root / "benchmarks" / "results")}


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []
