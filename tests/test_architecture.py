"""The arrows between the rooms, read from the source: who may import whom, and what a thin client loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "qwen3_triton"
ROOMS = ("client", "export", "server", "cli")
OUTSIDE = ("benchmarks", "tests", "examples")
# what one room may import of another one; `*` is everything
ARROWS = {
    "client": {},
    "export": {"__version__": {"*"}, "client": {"manifest", "errors"}},
    "server": {},
    "cli": {"__version__": {"*"}, "client": {"*"}, "export": {"*"}, "server": {"*"}},
}
# the rooms of the exporter, data going from the first to the last; each knows only those before it
EXPORT_ROOMS = ("sources", "passes", "graph", "batching", "artifacts", "verification", "int8", "tasks")
# tokenizers brings huggingface_hub, tritonclient brings grpc and protobuf
CLIENT_LIBRARIES = {"numpy", "tokenizers", "huggingface_hub", "tritonclient", "grpc", "google"}
HEAVY = {"torch", "transformers", "safetensors", "onnx_ir", "onnxruntime", "huggingface_hub", "peft"}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, in full, and where."""

    module: str
    place: str


def imports_of(room: str, root: Path) -> Iterator[Import]:
    """Every import of a room's modules, those inside functions and type-checking blocks too."""
    files = sorted((root / room).rglob("*.py"))
    assert files
    for file in files:
        package = [PACKAGE, *file.relative_to(root).parent.parts]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            place = f"{file.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, place) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*above, *([node.module] if node.module else [])])
                yield Import(module, place)
                yield from (Import(f"{module}.{alias.name}", place) for alias in node.names)


def allowed(room: str, module: str) -> bool:
    """Whether `room` may import `module` of this project."""
    _, target, *rest = module.split(".")
    if target == room:
        return True
    modules = ARROWS[room].get(target)
    if modules is None:
        return False
    return "*" in modules or not rest or rest[0] in modules


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_between_rooms(room: str, project_root: Path) -> None:
    ours = [found for found in imports_of(room, project_root) if found.module.startswith(f"{PACKAGE}.")]
    assert [found for found in ours if not allowed(room, found.module)] == []
    if room in ("client", "export"):
        assert ours


@pytest.mark.parametrize("room", EXPORT_ROOMS)
def test_data_goes_one_way_through_the_exporter(room: str, project_root: Path) -> None:
    assert {folder.parent.name for folder in (project_root / "export").glob("*/__init__.py")} == set(EXPORT_ROOMS)
    later = {*EXPORT_ROOMS[EXPORT_ROOMS.index(room) + 1 :], "model_sources", "lowering", "pipeline"}
    taken = [
        found
        for found in imports_of(f"export/{room}", project_root)
        if found.module.startswith(f"{PACKAGE}.export.") and found.module.split(".")[2] in later
    ]
    assert taken == []


def test_export_takes_the_manifest_and_no_more_of_the_client(project_root: Path) -> None:
    """Not through the facade either, whose names are the whole client's."""
    taken = [
        found
        for found in imports_of("export", project_root)
        if found.module.startswith(f"{PACKAGE}.client") and found.module.count(".") == 1
    ]
    assert taken == []


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_imports_what_is_never_installed(room: str, project_root: Path) -> None:
    roots = {(found.module.split(".")[0], found.place) for found in imports_of(room, project_root)}
    assert [(name, place) for name, place in roots if name in OUTSIDE] == []


@pytest.mark.parametrize("room", ["client", "server", "cli"])
def test_torch_and_its_kin_are_known_to_export_only(room: str, project_root: Path) -> None:
    # the backend runs inside Triton, where ONNX Runtime is what it is for; the client may fetch a tokenizer
    known = {"server": {"onnxruntime"}, "client": {"huggingface_hub"}}.get(room, set())
    found = [found for found in imports_of(room, project_root) if found.module.split(".")[0] in HEAVY - known]
    assert found == []


def test_client_needs_its_three_libraries_only(project_root: Path) -> None:
    roots = {found.module.split(".")[0] for found in imports_of("client", project_root)}
    assert roots - sys.stdlib_module_names - CLIENT_LIBRARIES - {PACKAGE} == set()


def test_reader_of_imports_sees_relative_and_late_ones(tmp_path: Path) -> None:
    folder = tmp_path / "export" / "graph"
    folder.mkdir(parents=True)
    source = "from ...client import manifest\ndef f():\n    import torch.nn\n    from . import x\nfrom ..a.b import c\n"
    (folder / "m.py").write_text(source)
    assert {found.module for found in imports_of("export", tmp_path)} == {
        "qwen3_triton.client",
        "qwen3_triton.client.manifest",
        "torch.nn",
        "qwen3_triton.export.graph",
        "qwen3_triton.export.graph.x",
        "qwen3_triton.export.a.b",
        "qwen3_triton.export.a.b.c",
    }
    assert not allowed("export", "qwen3_triton.client.embedding")
    assert not allowed("server", "qwen3_triton.export.pipeline")
    assert not allowed("client", "qwen3_triton.cli")
    assert allowed("export", "qwen3_triton.client.manifest")


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
    kept = HEAVY if "cli.main" in code else HEAVY | {"typer", "rich", "click"}
    script = f"{code}\nimport sys\nprint(*set({sorted(kept)!r}) & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
