"""Steps of a run, as named in a record's `not_measured`, and resuming an interrupted run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from .environment import Environment, read_code_state
from .record import Record, Resumption, TokenizerInfo

_INTERRUPTED = "the run was interrupted before this step"


class ResumeError(Exception):
    """The record cannot be resumed by this run; the message says why."""


def workload_step(name: str) -> str:
    """Return the name of the step that compares all contenders on one workload."""
    return f"workload {name}"


def mark_pending(steps: Sequence[str]) -> dict[str, str]:
    """Return `not_measured` items for steps that have not been reached."""
    return dict.fromkeys(steps, _INTERRUPTED)


def interrupted_after(reached: str) -> str:
    """Return the `not_measured` reason of a step that was interrupted after what it `reached`."""
    return f"the run was interrupted during this step, after {reached}"


def failed_after(reached: str, reason: str) -> str:
    """Return the `not_measured` reason of a step that failed after what it `reached`, which may be empty."""
    return f"the step failed{f' after {reached}' if reached else ''}: {reason}"


def now() -> str:
    """Return the current time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def resume(record: Record, command: str, environment: Environment, tokenizer: TokenizerInfo | None) -> Record:
    """Return `record` with a note that it is resumed now.

    Raises:
        ResumeError: if command, environment or tokenizer differ, or the run was complete.
    """
    if record.command != command:
        raise ResumeError(f"the record was started by '{record.command}', this is '{command}'")
    if record.environment != environment:
        raise ResumeError("machine, threads or versions differ from those of the record")
    if record.served_tokenizer != tokenizer:
        started, given = (_tokenizer_name(each) for each in (record.served_tokenizer, tokenizer))
        raise ResumeError(f"the record was started with {started}, this run has {given}")
    if not pending_steps(record):
        raise ResumeError("the run is already complete")
    return dataclasses.replace(record, resumed=(*record.resumed, Resumption(started=now(), code=read_code_state())))


def pending_steps(record: Record) -> dict[str, str]:
    """Return the `not_measured` items of steps that an interrupted run did not reach."""
    return {step: reason for step, reason in record.not_measured.items() if reason == _INTERRUPTED}


def _tokenizer_name(tokenizer: TokenizerInfo | None) -> str:
    return "no --tokenizer" if tokenizer is None else f"a --tokenizer with sha256 {tokenizer.sha256[:12]}"
