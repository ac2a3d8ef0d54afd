"""The server's own Python environment: `tritonserver` and ONNX Runtime from wheels, installed once.

It lives in the cache and not in the caller's environment, because the Python backend of this Triton
breaks silently beside numpy 2, which the client may well use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import EnvironmentInstallError

REQUIREMENTS = ("nvidia-pytriton==0.7.0", "numpy==1.26.4", "onnxruntime==1.23.2")
"""Installed without their dependencies: none of those is needed to run `tritonserver` and a session.

ONNX Runtime is that of the Triton image 25.11, whose operators the graphs are written for.
"""

SUPPORTED_PYTHONS = ((3, 11), (3, 12))
"""Wheels of numpy 1.26 and stubs of the Python backend exist for these."""

CACHE_VARIABLE = "QWEN3_TRITON_CACHE"
_MARKER = "complete"
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LIBPYTHON = f"lib{_PYTHON}.so.1.0"

Progress = Callable[[str], None]
"""Receives one line for each step of long work."""


def no_progress(_line: str) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class ServerEnvironment:
    """Paths of an installed environment."""

    path: Path

    @property
    def bin(self) -> Path:
        """Stands first on PATH, so that the stubs find this environment's packages."""
        return self.path / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin / "python"

    @property
    def site_packages(self) -> Path:
        """Its packages."""
        return self.path / "lib" / _PYTHON / "site-packages"

    @property
    def triton(self) -> Path:
        """The wheel's Triton: `bin/`, `backends/`, `caches/`, `python_backend_stubs/`."""
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def complete(self) -> bool:
        """Whether the installation came to its end and its interpreter still exists."""
        return (self.path / _MARKER).is_file() and self.python.exists()

    def variables(self) -> dict[str, str]:
        """Environment variables for `tritonserver`: the caller's, with its Python ones replaced."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        variables["VIRTUAL_ENV"] = str(self.path)
        variables["PATH"] = os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)])
        libraries = [str(self.site_packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        libraries += [inherited for inherited in [os.environ.get("LD_LIBRARY_PATH")] if inherited]
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return variables


def cache_directory() -> Path:
    """`$QWEN3_TRITON_CACHE`, or `qwen3-triton` in the user's cache directory."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser().resolve()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser().resolve() / "qwen3-triton"


def ensure_environment(progress: Progress = no_progress, *, cache: Path | None = None) -> ServerEnvironment:
    """The installed environment; installs it on the first call (seconds to a minute, 250 MB of downloads).

    `progress` receives one line per step. An installation that was interrupted is made anew; two
    processes at once wait for each other. Raises EnvironmentInstallError.
    """
    cache = cache or cache_directory()
    environment = ServerEnvironment(cache / f"server-{_fingerprint()}")
    if environment.complete:
        return environment
    _check_platform()
    with locked(environment.path.with_suffix(".lock")):
        if not environment.complete:
            progress(f"installing the server into {environment.path} (once)")
            _install(environment, progress)
    return environment


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` among processes; made where it does not exist."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as exc:
        raise EnvironmentInstallError(
            f"cannot write {exc.filename}: {exc.strerror}; set {CACHE_VARIABLE} to a directory that you may write"
        ) from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fingerprint() -> str:
    """Changes whenever the environment must be another one."""
    parts = (*REQUIREMENTS, sys.version, sys.base_prefix, sysconfig.get_platform())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _check_platform() -> None:
    if sys.platform != "linux":
        raise EnvironmentInstallError(f"tritonserver runs on Linux, not on {sys.platform}: use NVIDIA's container")
    if sys.version_info[:2] not in SUPPORTED_PYTHONS:
        known = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
        raise EnvironmentInstallError(
            f"the local server needs Python {known}, this is {sys.version_info.major}.{sys.version_info.minor}: "
            "install qwen3-triton with one of those, or use NVIDIA's container"
        )


def _install(environment: ServerEnvironment, progress: Progress) -> None:
    """Makes the environment from nothing; the marker is written last."""
    log = environment.path.with_suffix(".log")
    log.unlink(missing_ok=True)
    shutil.rmtree(environment.path, ignore_errors=True)
    python = str(environment.python)
    _run([sys.executable, "-m", "venv", str(environment.path)], log, "making a virtual environment")
    progress(f"downloading {', '.join(REQUIREMENTS)}")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--only-binary=:all:"]
    _run([*pip, *REQUIREMENTS], log, "installing the server's packages")
    progress("checking the installation")
    _run([python, "-c", "import numpy, onnxruntime"], log, "importing the server's packages")
    check = f"import ctypes; ctypes.CDLL({_LIBPYTHON!r})"
    _run([python, "-c", check], log, f"loading {_LIBPYTHON}", variables=environment.variables())
    (environment.path / _MARKER).write_text("\n".join(REQUIREMENTS) + "\n")
    log.unlink(missing_ok=True)


def _run(command: list[str], log: Path, what: str, *, variables: dict[str, str] | None = None) -> None:
    """Runs one step, its output appended to `log`."""
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    with log.open("a") as written:
        written.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode != 0:
        raise EnvironmentInstallError(
            f"{what} failed: {_cause(done.stdout)}; {_advice(what)}; all of its output: {log}"
        )


def _cause(output: str) -> str:
    """The line of a failed step's output that says most: pip's first ERROR, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return next(iter(errors or lines[-1:]), "no output")


def _advice(what: str) -> str:
    if _LIBPYTHON in what:
        return f"use a Python built with its shared library, or install lib{_PYTHON} from your distribution"
    if "virtual environment" in what:
        return "install your distribution's python3-venv"
    return "check the network and pip's index settings, then try again"
