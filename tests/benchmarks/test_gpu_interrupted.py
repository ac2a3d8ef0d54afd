"""What the record of a run on a GPU contains if the run is interrupted, or if something fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_engine import FakeEngine, fake_contender

from benchmarks import comparison, gpu, measurement
from benchmarks.contenders import Contender, ContenderUnavailableError, Recipe, RunContext
from benchmarks.gpu import GpuOptions, measure_gpu
from benchmarks.model_shape import SHAPES
from benchmarks.record import Record, Sample
from benchmarks.record_file import RecordFile, read_record
from benchmarks.report import render_record
from benchmarks.rows import Rows, Vectors
from benchmarks.workload import WORKLOADS

_REPETITIONS, _PROBES = 3, 3
_UNTIL_TIMING = 6 + 3
"""Passes of the scan of two settings and of the warm-ups."""
_NO_PROFILE = "no profile on this machine"


class InterruptedEngine(FakeEngine):
    """Stops the run in a timed pass, as if the machine were taken away."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self._left = passes

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return the predefined times until no pass is left."""
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return super().time(rows, batch_rows, passes)


class BrokenEngine(InterruptedEngine):
    """Raises an unexpected error in a timed pass."""

    def time(self, rows: Rows, batch_rows: int, passes: int) -> list[Sample]:
        """Return the predefined times until no pass is left."""
        try:
            return super().time(rows, batch_rows, passes)
        except KeyboardInterrupt:
            raise ZeroDivisionError("no passes left") from None


@dataclass(slots=True, kw_only=True)
class Run:
    """A run with fake contenders, and the records that it saved."""

    file: Path
    saved: list[Record] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def measure(self, recipes: Sequence[Recipe], workloads: Sequence[str] = ("tiny",)) -> Record:
        """Measure `recipes`; every saved record is read back and rendered."""
        file = RecordFile(self.file)

        def save(record: Record) -> None:
            file.save(record)
            assert read_record(self.file) == record
            assert render_record(record)
            self.saved.append(record)

        options = GpuOptions(
            shape=SHAPES["tiny"],
            workloads=[WORKLOADS[name] for name in workloads],
            recipes=recipes,
            cache=self.file.parent,
            threads=1,
            repetitions=_REPETITIONS,
            gpu=None,
            command="python -m benchmarks gpu",
        )
        return measure_gpu(options, self.log.append, save)

    @property
    def reasons(self) -> list[str]:
        """Why the first workload was incomplete in each saved record; empty where it was complete."""
        return [record.not_measured.get("workload tiny", "") for record in self.saved]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(measurement, "_PAUSE_S", 0)
    monkeypatch.setattr(gpu, "cached_checkpoint", lambda *_: tmp_path)
    monkeypatch.setattr(comparison, "reference_outputs", lambda _context, rows, _task: FakeEngine().embed(rows, 1))
    monkeypatch.setattr(comparison, "start_probe", lambda *_: FakeEngine())
    return Run(file=tmp_path / "record.json")


def _recipe(
    program: str, engine: FakeEngine | None = None, profile: Callable[[Rows], Mapping[str, int]] | None = None
) -> Recipe:
    def prepare(context: RunContext) -> Sequence[Contender]:
        context.log(f"loaded {program}")
        contender = fake_contender(engine or FakeEngine({2: 0.5}), program=program, batch_rows=(None, 2))
        return [dataclasses.replace(contender, profile=profile)]

    return Recipe(program=program, prepare=prepare)


def _profile(_rows: Rows) -> Mapping[str, int]:
    return {"MatMul": 9}


def test_record_is_saved_after_each_program_and_each_repetition(run: Run) -> None:
    complete = run.measure([_recipe("a"), _recipe("b", profile=_profile)])
    programs = [[entry.program for entry in record.comparisons[0].entries] for record in run.saved]
    assert programs == [["a"], *[["a", "b"]] * (1 + _REPETITIONS + 2)]
    samples = [[len(entry.samples) for entry in record.comparisons[0].entries] for record in run.saved]
    assert samples == [[1], [1, 1], [1, 1], [2, 2], [3, 3], [3, 3], [3, 3]]
    prefix = "the run was interrupted during this step, after "
    assert [reason.removeprefix(prefix) for reason in run.reasons] == [
        "the scan of 1 of 2 programs, whose times are one pass of it",
        "the scan of 2 of 2 programs, whose times are one pass of it",
        "1 of 3 repetitions",
        "2 of 3 repetitions",
        "3 of 3 repetitions",
        "all repetitions and the profile of b",
        "",
    ]
    assert run.saved[-1] == complete
    assert complete.not_measured.keys() == {"GPU"}
    assert complete.comparisons[0].profile_us == {"b": {"MatMul": 9}}


def test_entry_before_the_first_repetition_has_the_shortest_pass_of_its_setting(run: Run) -> None:
    run.measure([_recipe("a")])
    (scanned,) = run.saved[0].comparisons[0].entries
    assert scanned.setting == "sorted padded batches of 2"
    assert [sample.wall_s for sample in scanned.samples] == [0.5]
    assert not run.saved[0].comparisons[0].matmuls
    assert [len(probe.samples) for probe in run.saved[1].comparisons[0].matmuls] == [1, 1]


def test_partial_record_of_a_workload_with_several_passes_can_be_rendered(run: Run) -> None:
    complete = run.measure([_recipe("qwen3-triton a"), _recipe("b")], ["text-200"])
    passes = WORKLOADS["text-200"].passes
    assert [record.comparisons[0].workload.passes for record in run.saved[:3]] == [1, 1, passes]
    assert complete.comparisons[0].workload.passes == passes


@pytest.mark.parametrize(("passes", "reached"), [(0, "1 of 2 programs"), (_UNTIL_TIMING + 1, "1 of 3 repetitions")])
def test_interrupted_run_keeps_what_it_measured(run: Run, passes: int, reached: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run.measure([_recipe("a"), _recipe("b", InterruptedEngine(passes))], ["tiny", "mix"])
    record = read_record(run.file)
    assert record.comparisons[0].entries[0].program == "a"
    assert reached in record.not_measured["workload tiny"]
    assert record.not_measured["workload mix"] == "the run was interrupted before this step"


def test_contenders_are_prepared_in_turn_and_kept(run: Run) -> None:
    run.measure([_recipe("a"), _recipe("b")], ["tiny", "mix"])
    turns = [line for line in run.log if line.startswith(("loaded", "selecting", "workload"))]
    first, second = turns[:5], turns[5:]
    assert first[1:] == [
        "loaded a",
        "selecting the fastest setting of a",
        "loaded b",
        "selecting the fastest setting of b",
    ]
    assert second[1:] == [f"selecting the fastest setting of {program}" for program in "ab"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ContenderUnavailableError("no kernel"), "no kernel"),
        (ValueError("no /some/path"), "unexpected ValueError: no <path>"),
    ],
)
def test_program_that_cannot_be_prepared_is_listed(run: Run, error: Exception, reason: str) -> None:
    def prepare(_context: RunContext) -> Sequence[Contender]:
        raise error

    record = run.measure([Recipe(program="a", prepare=prepare), _recipe("b")], ["tiny", "mix"])
    for compared in record.comparisons:
        assert compared.not_measured == {"a": reason}
        assert [entry.program for entry in compared.entries] == ["b"]


@pytest.mark.parametrize("passes", [0, _UNTIL_TIMING + 1])
def test_unexpected_error_of_a_program_removes_only_that_program(run: Run, passes: int) -> None:
    record = run.measure([_recipe("a", BrokenEngine(passes)), _recipe("b")])
    (compared,) = record.comparisons
    assert compared.not_measured == {"a": "unexpected ZeroDivisionError: no passes left"}
    assert [(entry.program, len(entry.samples)) for entry in compared.entries] == [("b", _REPETITIONS)]
    assert any("Traceback" in line for line in run.log)


def test_failed_profile_loses_nothing(run: Run) -> None:
    def profile(_rows: Rows) -> Mapping[str, int]:
        raise OSError(_NO_PROFILE)

    (compared,) = run.measure([_recipe("a", profile=profile), _recipe("b", profile=_profile)]).comparisons
    assert compared.not_measured == {"profile of a": f"unexpected OSError: {_NO_PROFILE}"}
    assert compared.profile_us == {"b": {"MatMul": 9}}
    assert [len(entry.samples) for entry in compared.entries] == [_REPETITIONS] * 2


def test_profiles_run_after_the_times_were_saved(run: Run) -> None:
    def profile(_rows: Rows) -> Mapping[str, int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.measure([_recipe("a", profile=profile)])
    (entry,) = read_record(run.file).comparisons[0].entries
    assert len(entry.samples) == _REPETITIONS


def test_workload_without_reference_does_not_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = len(WORKLOADS["tiny"].rows(SHAPES["tiny"].vocabulary))

    def reference(_context: RunContext, rows: Rows, _task: object) -> Vectors:
        if len(rows) == texts:
            raise ContenderUnavailableError("out of memory")
        return FakeEngine().embed(rows, 1)

    monkeypatch.setattr(comparison, "reference_outputs", reference)
    record = run.measure([_recipe("a")], ["tiny", "mix"])
    assert record.not_measured["workload tiny"] == "the step failed: out of memory"
    assert [compared.workload.name for compared in record.comparisons] == ["mix"]
    assert read_record(run.file) == record


def test_probe_that_does_not_start_is_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> FakeEngine:
        raise ContenderUnavailableError("no torch")

    monkeypatch.setattr(comparison, "start_probe", start)
    (compared,) = run.measure([_recipe("a")]).comparisons
    assert set(compared.not_measured.values()) == {"no torch"}
    assert len(compared.not_measured) == _PROBES
