"""Texts that the benchmark's tokenizer turns into rows of given lengths."""

from __future__ import annotations

import random
import string

from ..workload import Workload

_LETTERS = string.ascii_lowercase + " "


def workload_texts(workload: Workload) -> list[str]:
    """Texts whose token rows are as long as the workload's: one token a letter, and the end token."""
    dice = random.Random(workload.seed)
    lengths = [len(row) for row in workload.rows(vocabulary=2)]
    return ["".join(dice.choices(_LETTERS, k=length - 1)) for length in lengths]
