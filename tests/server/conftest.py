"""A real Triton with five small models, shared by all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models

from qwen3_triton.server import TritonServer, start_triton


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    tiny_models.write_sums(repository)
    tiny_models.write_lookup(repository)
    tiny_models.write_fixed(repository)
    tiny_models.write_unbatched(repository)
    tiny_models.write_slow(repository)
    with start_triton(repository) as running:
        yield running


@pytest.fixture
def sums_repository(tmp_path: Path) -> Path:
    """A separate repository with the model `sums`."""
    repository = tmp_path / "repository"
    tiny_models.write_sums(repository)
    return repository
