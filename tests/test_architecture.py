"""What each package loads when it is imported; the import rules themselves are contracts in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys

import grimp
import pytest

PACKAGE = "qwen3_triton"
# tokenizers installs huggingface_hub, tritonclient installs grpc and protobuf
CLIENT_LIBRARIES = {"numpy", "tokenizers", "huggingface_hub", "tritonclient", "grpc", "google"}
HEAVY = {"torch", "transformers", "safetensors", "onnx_ir", "onnxruntime", "huggingface_hub", "peft"}


def test_client_uses_its_three_dependencies_only() -> None:
    graph = grimp.build_graph(PACKAGE, include_external_packages=True, cache_dir=None)
    modules = {f"{PACKAGE}.client"} | graph.find_descendants(f"{PACKAGE}.client")
    # the adapters need the extras of their names
    modules -= graph.find_descendants(f"{PACKAGE}.client.integrations")
    assert f"{PACKAGE}.client.embedding" in modules
    # the only module with an optional library
    modules -= {f"{PACKAGE}.client.tracing"}
    imported = {found.split(".")[0] for module in modules for found in graph.find_modules_directly_imported_by(module)}
    assert "tritonclient" in imported
    assert imported - sys.stdlib_module_names - CLIENT_LIBRARIES - {PACKAGE} == set()


@pytest.mark.parametrize(
    "code",
    [
        "import qwen3_triton.client; qwen3_triton.client.EmbeddingClient",
        "import qwen3_triton.client.manifest",
        "import qwen3_triton.server",
        "import qwen3_triton.cli.main",
    ],
)
def test_import_loads_nothing_heavy(code: str) -> None:
    heavy = HEAVY if "cli.main" in code else HEAVY | {"typer", "rich", "click"}
    script = f"{code}\nimport sys\nprint(*set({sorted(heavy)!r}) & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
