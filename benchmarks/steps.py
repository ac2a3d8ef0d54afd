"""What a run goes through, by the names under which a record says that it is not done."""

from __future__ import annotations

from collections.abc import Sequence


def workload_step(name: str) -> str:
    """Every contender on one workload."""
    return f"workload {name}"


def unreached(steps: Sequence[str]) -> dict[str, str]:
    """Step → why it is not done, as long as that is so."""
    return dict.fromkeys(steps, "the run ended before it")
