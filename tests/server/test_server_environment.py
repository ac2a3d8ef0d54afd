"""Installation of the server's environment, with fake steps instead of downloads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qwen3_triton.server import EnvironmentInstallError, ensure_environment, environment
from qwen3_triton.server.backend_directory import ensure_backend_directory


def fake_step(command: list[str], log: Path, what: str, *, variables: dict[str, str] | None = None) -> None:
    """Replace every step; the virtual environment gets an interpreter."""
    del log, what, variables
    if "venv" in command:
        interpreter = Path(command[-1]) / "bin" / "python"
        interpreter.parent.mkdir(parents=True)
        interpreter.symlink_to(sys.executable)


def test_interrupted_installation_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(command: list[str], log: Path, what: str) -> None:
        fake_step(command, log, what)
        if "pip" in command:
            raise KeyboardInterrupt

    monkeypatch.setattr(environment, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_environment(cache=tmp_path)
    (partial,) = (entry for entry in tmp_path.iterdir() if entry.is_dir())
    (partial / "partial package").touch()

    monkeypatch.setattr(environment, "_run", fake_step)
    lines: list[str] = []
    made = ensure_environment(lines.append, cache=tmp_path)

    assert made.path == partial
    assert made.complete
    assert not (partial / "partial package").exists()
    assert lines


def test_complete_installation_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_run", fake_step)
    made = ensure_environment(cache=tmp_path)
    (made.path / "kept").touch()
    lines: list[str] = []

    assert ensure_environment(lines.append, cache=tmp_path) == made
    assert (made.path / "kept").exists()
    assert not lines


@pytest.mark.parametrize("name", ["with space", "ümlaut", "a:b"])
def test_cache_that_the_server_cannot_run_from(tmp_path: Path, name: str) -> None:
    with pytest.raises(EnvironmentInstallError, match="QWEN3_TRITON_CACHE"):
        ensure_environment(cache=tmp_path / name)


def test_installation_without_its_interpreter_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_run", fake_step)
    made = ensure_environment(cache=tmp_path)
    made.python.unlink()

    assert not made.complete
    assert ensure_environment(cache=tmp_path).complete


def test_failing_step_is_one_line_with_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = "Looking in indexes: x\nERROR: No matching distribution found for y\nhint: z\n"

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout=output)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(EnvironmentInstallError, match="No matching distribution found for y") as caught:
        ensure_environment(cache=tmp_path)

    assert "\n" not in str(caught.value)
    (log,) = tmp_path.glob("*.log")
    assert output in log.read_text()


def test_python_without_wheels_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "SUPPORTED_PYTHONS", ((3, 9),))
    with pytest.raises(EnvironmentInstallError, match=r"needs Python 3\.9"):
        ensure_environment(cache=tmp_path)


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentInstallError, match=environment.CACHE_VARIABLE):
        ensure_environment(cache=tmp_path / "file" / "cache")


def test_cache_directory_from_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv(environment.CACHE_VARIABLE, raising=False)
    assert environment.cache_directory() == tmp_path / "xdg" / "qwen3-triton"
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path / "own"))
    assert environment.cache_directory() == tmp_path / "own"


def test_backend_directory_is_created_once() -> None:
    installed = ensure_environment()

    directory = ensure_backend_directory(installed)

    assert ensure_backend_directory(installed) == directory
    assert (directory / "python" / "triton_python_backend_stub").is_file()
    assert (directory / "onnxruntime" / "model.py").is_file()
