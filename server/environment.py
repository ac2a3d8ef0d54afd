"""The server's separate Python environment: `tritonserver` and ONNX Runtime from wheels, installed once.

It is in the cache and not in the caller's environment, because the Python backend of this Triton silently fails with
numpy 2, which the client may use.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
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
"""Installed without dependencies, because `tritonserver` and an ONNX Runtime session need none of them.

The version of ONNX Runtime is that of the Triton image 25.11, whose operators the exported graphs use.
"""

SUPPORTED_PYTHONS = ((3, 11), (3, 12))
"""Versions for which there are wheels of numpy 1.26 and stubs of the Python backend."""

CACHE_VARIABLE = "QWEN3_TRITON_CACHE"
_MARKER = "complete"
_SAFE_PATH = re.compile(r"[A-Za-z0-9/._+@%,=~-]*")
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LIBPYTHON = f"lib{_PYTHON}.so.1.0"

Progress = Callable[[str], None]
"""Callback that receives one line of text for each step of a long operation."""


def ignore_progress(_line: str) -> None:
    """Discard a line of progress."""


@dataclass(frozen=True, slots=True)
class ServerEnvironment:
    """Paths of the server's Python environment."""

    path: Path
    """Root of the virtual environment."""

    @property
    def bin(self) -> Path:
        """Directory of the executables; first on the server's PATH, so that stubs find the environment's packages."""
        return self.path / "bin"

    @property
    def python(self) -> Path:
        """Python interpreter."""
        return self.bin / "python"

    @property
    def site_packages(self) -> Path:
        """Directory of the installed packages."""
        return self.path / "lib" / _PYTHON / "site-packages"

    @property
    def triton(self) -> Path:
        """Triton's directory in the wheel, with `bin/`, `backends/`, `caches/` and `python_backend_stubs/`."""
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def complete(self) -> bool:
        """Whether the installation has finished and the interpreter still exists."""
        return (self.path / _MARKER).is_file() and self.python.exists()

    def variables(self) -> dict[str, str]:
        """Return environment variables for `tritonserver`: the caller's, with those of Python replaced."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        variables["VIRTUAL_ENV"] = str(self.path)
        variables["PATH"] = os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)])
        libraries = [str(self.site_packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        libraries += [inherited for inherited in [os.environ.get("LD_LIBRARY_PATH")] if inherited]
        variables["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        return variables


def cache_directory() -> Path:
    """Return `$QWEN3_TRITON_CACHE`, or `qwen3-triton` in the user's cache directory."""
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser().resolve()
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user_cache).expanduser().resolve() / "qwen3-triton"


def ensure_environment(progress: Progress = ignore_progress, *, cache: Path | None = None) -> ServerEnvironment:
    """Return the server's environment; install it on the first call (up to a minute, 250 MB of downloads).

    An interrupted installation is repeated from the start. Concurrent processes wait for each other.

    Args:
        progress: Called with one line of text per step.
        cache: Directory to install into; None for `$QWEN3_TRITON_CACHE`, or `qwen3-triton` in the user's cache.

    Raises:
        EnvironmentInstallError: The platform or the path of the cache is not supported, or a step of the
            installation failed.
    """
    # absolute, because the server has another working directory
    cache = (cache or cache_directory()).resolve()
    if not _SAFE_PATH.fullmatch(str(cache)):
        raise EnvironmentInstallError(
            f"the server cannot run from {str(cache)!r}, because Triton starts its Python backend with unquoted paths: "
            f"set {CACHE_VARIABLE} to a directory whose path has only ASCII letters, digits, '.', '_' and '-'"
        )
    environment = ServerEnvironment(cache / f"server-{_fingerprint()}")
    if environment.complete:
        return environment
    _check_platform()
    with file_lock(environment.path.with_suffix(".lock")):
        if not environment.complete:
            progress(f"installing the server into {environment.path} (first use only)")
            _install(environment, progress)
    return environment


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes on `path`, which is created if it does not exist."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as exc:
        raise EnvironmentInstallError(
            f"cannot write {exc.filename}: {exc.strerror}; set {CACHE_VARIABLE} to a writable directory"
        ) from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fingerprint() -> str:
    """Return a hash of everything that the environment depends on."""
    parts = (*REQUIREMENTS, sys.version, sys.base_prefix, sysconfig.get_platform())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _check_platform() -> None:
    if sys.platform != "linux":
        raise EnvironmentInstallError(f"the local server runs on Linux, not on {sys.platform}: use NVIDIA's container")
    if sys.version_info[:2] not in SUPPORTED_PYTHONS:
        supported = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
        raise EnvironmentInstallError(
            f"the local server needs Python {supported}, this is {sys.version_info.major}.{sys.version_info.minor}: "
            "install qwen3-triton with one of those, or use NVIDIA's container"
        )


def _install(environment: ServerEnvironment, progress: Progress) -> None:
    """Create the environment from scratch and write the marker at the end."""
    log = environment.path.with_suffix(".log")
    log.unlink(missing_ok=True)
    shutil.rmtree(environment.path, ignore_errors=True)
    python = str(environment.python)
    _run([sys.executable, "-m", "venv", str(environment.path)], log, "creating a virtual environment")
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
    """Run one step of the installation and append its output to `log`."""
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    with log.open("a") as written:
        written.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode != 0:
        raise EnvironmentInstallError(f"{what} failed: {_cause(done.stdout)}; {_remedy(what)}; complete output: {log}")


def _cause(output: str) -> str:
    """Return the most informative line of a failed step's output: pip's first ERROR, or else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return next(iter(errors or lines[-1:]), "no output")


def _remedy(what: str) -> str:
    if _LIBPYTHON in what:
        return f"use a Python built with its shared library, or install lib{_PYTHON} from your distribution"
    if "virtual environment" in what:
        return "install your distribution's python3-venv"
    return "check the network and pip's index settings, then try again"
