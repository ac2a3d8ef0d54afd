"""A real tritonserver with the demo embedding model and the demo reranker, shared by tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_demo import SERVED_MAX_TOKENS, ServedDemo

from qwen3_triton.client import Precision
from qwen3_triton.export import ExportOptions, SourceReference, export_model
from qwen3_triton.server import start_triton


@pytest.fixture(scope="session")
def served_demo(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[ServedDemo]:
    repository = tmp_path_factory.mktemp("side-by-side") / "model_repository"
    demo = project_root / "examples" / "demo"
    for name, folder, precision in (
        ("embedder", "checkpoint", Precision.FP32),
        ("reranker-fp32", "reranker", Precision.FP32),
        ("reranker-fp16", "reranker", Precision.FP16),
    ):
        export_model(
            ExportOptions(
                model=SourceReference(str(demo / folder)),
                repository=repository,
                name=name,
                precision=precision,
                max_tokens=SERVED_MAX_TOKENS,
            )
        )
    with start_triton(repository) as server:
        yield ServedDemo(server, repository)
