"""The built distributions: their content, and the wheel in an environment with only its dependencies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_triton import MODEL, FakeTriton, row_vector
from sample_manifest import DIMENSION

import qwen3_triton

BUILD = "from setuptools import build_meta; print(build_meta.build_{kind}({folder!r}))"
SUB_PACKAGES = ("client", "export", "server", "cli")
HEAVY = {"torch", "transformers", "onnxruntime", "onnx-ir", "safetensors", "peft", "matplotlib"}
CALL = """
import json, sys
url, model, tokenizer = sys.argv[1:]
import qwen3_triton.client
at_import = sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "tokenizers", "tritonclient", "numpy"})
from qwen3_triton.client import EmbeddingClient
with EmbeddingClient(url, model, tokenizer=tokenizer) as client:
    vectors = client.embed_documents(["a text"])
print(json.dumps({"at_import": at_import, "vectors": vectors.tolist(), "file": qwen3_triton.__file__}))
"""


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build the `wheel` or `sdist` of `source` in `folder` and return its path."""
    command = [sys.executable, "-c", BUILD.format(kind=kind, folder=str(folder))]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """A copy of the tracked files, so that the build does not write into the checkout."""
    copy = tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=project_root, capture_output=True, check=True).stdout
    present = b"\0".join(name for name in files.split(b"\0") if name and (project_root / name.decode()).exists())
    packed = subprocess.run(
        ["tar", "-c", "--null", "-T", "-"], cwd=project_root, input=present, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x"], cwd=copy, input=packed.stdout, check=True)
    return copy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def runs(python: str) -> bool:
    """Whether the command `python` is an interpreter; a version manager may have a stub for one that is not active."""
    if shutil.which(python) is None:
        return False
    return subprocess.run([python, "--version"], capture_output=True, check=False).returncode == 0


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) for name in (sys.executable, "python3.12", "python3.13")],
    ids=["this Python", "3.12", "3.13"],
)
def bare_python(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, project_root: Path, wheel: Path
) -> Path:
    """Interpreter of an environment with only the wheel and its dependencies."""
    interpreter = str(request.param)
    if not runs(interpreter):
        pytest.skip(f"{interpreter} is not installed")
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*pip, "-c", str(project_root / "constraints.txt"), str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return python


def test_wheel_contains_every_module_and_data_file(wheel: Path, project_root: Path) -> None:
    assert wheel.name.startswith(f"qwen3_triton-{qwen3_triton.__version__}-py3-none-any")
    expected = {
        f"qwen3_triton/{file.relative_to(project_root)}"
        for package in SUB_PACKAGES
        for pattern in ("*.py", "*.c", "*.so", "*.jsonl")
        for file in (project_root / package).rglob(pattern)
    }
    assert names_in(wheel) == expected | {"qwen3_triton/__init__.py", "qwen3_triton/py.typed"}
    assert "qwen3_triton/export/batching/x86_64/batchstrategy.so" in expected


def test_wheel_of_the_source_distribution_is_the_same(
    wheel: Path, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", source, folder)) as archive:
        archive.extractall(folder, filter="data")
    [unpacked] = [entry for entry in folder.iterdir() if entry.is_dir()]
    assert names_in(build("wheel", unpacked, tmp_path_factory.mktemp("rebuilt"))) == names_in(wheel)


def test_client_works_without_the_packages_of_the_exporter(
    bare_python: Path, triton: FakeTriton, tokenizer_file: Path
) -> None:
    listed = [str(bare_python), "-m", "pip", "--disable-pip-version-check", "list", "--format", "json"]
    installed = json.loads(subprocess.run(listed, capture_output=True, text=True, check=True).stdout)
    names = {entry["name"].lower().replace("_", "-") for entry in installed}
    assert not names & HEAVY

    command = [str(bare_python), "-c", CALL, triton.url, MODEL, str(tokenizer_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=bare_python.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["at_import"] == []
    assert Path(found["file"]).is_relative_to(bare_python.parent.parent)
    [[ids]] = triton.batches
    np.testing.assert_array_equal(np.asarray(found["vectors"], np.float32), [row_vector(ids.tolist(), DIMENSION)])


def test_command_names_the_missing_extra(bare_python: Path) -> None:
    command = [str(bare_python.with_name("qwen3-triton")), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:  # another dependency may have installed typer and rich
        assert done.stdout == f"qwen3-triton {qwen3_triton.__version__}\n"
    else:
        assert done.stderr.count("\n") == 1
        assert "pip install 'qwen3-triton[cli]'" in done.stderr
