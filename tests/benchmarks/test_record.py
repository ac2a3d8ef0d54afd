"""Records come back as they were written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from sample_record import sample_record

from benchmarks.record import SCHEMA_VERSION, TokenizerFacts
from benchmarks.record_file import RecordInvalid, read_record, write_record


def test_record_comes_back_as_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "record.json"
    write_record(sample_record(), file)
    assert read_record(file) == sample_record()


def test_served_tokenizer_comes_back_and_older_records_have_none(tmp_path: Path) -> None:
    record = dataclasses.replace(sample_record(), served_tokenizer=TokenizerFacts(sha256="0f", vocabulary=9))
    write_record(record, tmp_path / "new.json")
    assert read_record(tmp_path / "new.json") == record
    raw = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))
    del raw["served_tokenizer"]
    (tmp_path / "old.json").write_text(json.dumps(raw), encoding="utf-8")
    assert read_record(tmp_path / "old.json") == sample_record()


def test_record_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_record(sample_record(), file)
    with pytest.raises(FileExistsError):
        write_record(sample_record(), file)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_record(dataclasses.replace(sample_record(), schema_version=99), file)
    with pytest.raises(RecordInvalid, match="schema 99"):
        read_record(file)


def test_records_of_the_first_schema_are_read(project_root: Path) -> None:
    file = project_root / "benchmarks" / "results" / "2026-11-23T123147-mix.json"
    record = read_record(file)
    (measured,) = record.rounds
    assert record.schema_version == SCHEMA_VERSION
    assert (measured.workload.name, measured.workload.passes) == ("mix", 1)
    assert all(len(entry.samples) == 15 and not entry.scan for entry in measured.entries)


def test_every_kept_result_is_read(project_root: Path) -> None:
    files = list((project_root / "benchmarks" / "results").glob("*.json"))
    assert files
    for file in files:
        assert read_record(file).rounds


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema_version": 1}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(RecordInvalid, match=r"record\.json"):
        read_record(file)


def test_kept_results_hold_no_paths_and_no_addresses(project_root: Path) -> None:
    for file in (project_root / "benchmarks" / "results").glob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert "://" not in text, file.name
        assert not [value for value in _strings(json.loads(text)) if value.startswith(("/", "~"))], file.name


def _strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []
