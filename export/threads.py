"""How many threads torch uses for one operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread_per_operator() -> Iterator[None]:
    """Let torch compute each operator in one thread, for many small operators or several at once.

    With more, each operator waits for its slowest thread, which on a busy machine takes longer than the work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
