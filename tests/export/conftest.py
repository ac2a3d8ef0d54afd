"""A shared checkpoint, and one torch thread, because tiny models are slower with more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_checkpoint import write_checkpoint


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default tiny checkpoint; tests must not write to it."""
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="session")
def plain_adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and a plain LoRA adapter; tests must not write to them."""
    from merged_adapters import Form, make

    return make(tmp_path_factory.mktemp("plain"), Form())
