"""What a run goes through, by the names under which a record says that it is not done."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from .environment import Environment, read_code_state
from .record import Record, Resumption, TokenizerFacts

_ENDED = "the run ended before it"


class CannotResume(Exception):
    """Why a record cannot be gone on with."""


def workload_step(name: str) -> str:
    """Every contender on one workload."""
    return f"workload {name}"


def unreached(steps: Sequence[str]) -> dict[str, str]:
    """Step → why it is not done, as long as that is so."""
    return dict.fromkeys(steps, _ENDED)


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def resume(record: Record, command: str, environment: Environment, tokenizer: TokenizerFacts | None) -> Record:
    """`record` with a note that it goes on now; raises CannotResume."""
    if record.command != command:
        raise CannotResume(f"the record was begun by '{record.command}', this is '{command}'")
    if record.environment != environment:
        raise CannotResume("machine, threads or versions are not those that the record was begun with")
    if record.served_tokenizer != tokenizer:
        begun, given = (_tokenizer_name(each) for each in (record.served_tokenizer, tokenizer))
        raise CannotResume(f"the record was begun with {begun} for what is served, this run has {given}")
    if not pending_steps(record):
        raise CannotResume("the run had reached its end")
    return dataclasses.replace(record, resumed=(*record.resumed, Resumption(started=now(), code=read_code_state())))


def pending_steps(record: Record) -> dict[str, str]:
    """Step → why it is not done, of a run that was ended."""
    return {step: why for step, why in record.not_done.items() if why == _ENDED}


def _tokenizer_name(tokenizer: TokenizerFacts | None) -> str:
    return "no --tokenizer" if tokenizer is None else f"the --tokenizer of sha256 {tokenizer.sha256[:12]}"
