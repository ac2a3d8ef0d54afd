"""Virtual environments of the peers, whose package versions conflict with each other and with this project's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .contender import ContenderUnavailableError, RunContext
from .reasons import public_reason

TORCH = "torch==2.13.0"
_TIMEOUT_S = 1800
_MARK = "pins.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEnvironment:
    """Packages of a peer's virtual environment."""

    name: str
    pins: tuple[str, ...]
    """Requirements, as pip takes them."""
    unwanted: tuple[str, ...] = ()
    """Dependencies that are uninstalled again."""

    def build(self, context: RunContext) -> InstalledPeer:
        """Build the environment unless the cache has it.

        Raises:
            ContenderUnavailableError: if it cannot be built.
        """
        return build_environment(self, context.cache / "environments" / self.name, context.log)


class InstalledPeer:
    """The environment of a peer, with everything installed."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"

    def run(self, *arguments: str) -> str:
        """Run its Python interpreter with `arguments` and return the standard output.

        Raises:
            ContenderUnavailableError: if it fails.
        """
        return _run([str(self.python), *arguments])


def build_environment(wanted: PeerEnvironment, folder: Path, log: Callable[[str], None]) -> InstalledPeer:
    """Build `wanted` in `folder`, unless it is there with the same pins.

    Raises:
        ContenderUnavailableError: if it cannot be built.
    """
    description = [*wanted.pins, *(f"without {name}" for name in wanted.unwanted)]
    mark = folder / _MARK
    peer = InstalledPeer(folder)
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == description:
        return peer
    shutil.rmtree(folder, ignore_errors=True)
    log(f"  creating the environment {wanted.name}")
    _run([sys.executable, "-m", "venv", str(folder)])
    # torch is installed first and alone, so that the CPU build is found in the configured index
    steps = ((TORCH,), wanted.pins) if TORCH in wanted.pins else (wanted.pins,)
    for pins in steps:
        log(f"  installing {', '.join(pins)}")
        require_no_cuda(_would_install(peer, pins))
        peer.run("-m", "pip", "install", "--quiet", *pins)
    if wanted.unwanted:
        peer.run("-m", "pip", "uninstall", "--quiet", "--yes", *wanted.unwanted)
    mark.write_text(json.dumps(description), encoding="utf-8")
    return peer


def require_no_cuda(packages: Iterable[str]) -> None:
    """Check that none of `packages` belongs to CUDA.

    Raises:
        ContenderUnavailableError: if one does.
    """
    cuda = sorted(name for name in packages if re.match(r"(nvidia|cuda|triton$)", name.lower()))
    if cuda:
        raise ContenderUnavailableError(
            f"{TORCH} would bring CUDA ({', '.join(cuda[:3])}, …); configure an index with its CPU build"
        )


def _would_install(peer: InstalledPeer, pins: Sequence[str]) -> list[str]:
    report = peer.run("-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", *pins)
    return [entry["metadata"]["name"] for entry in json.loads(report)["install"]]


def _run(command: Sequence[str]) -> str:
    # without this, exporters try to download files that a local checkpoint lacks, and time out without a network
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True, env=variables)
    except subprocess.CalledProcessError as exc:
        lines = [line for line in exc.stderr.splitlines() if line.strip()] or ["no message"]
        raise ContenderUnavailableError(public_reason(lines[-1])) from exc
    except (subprocess.TimeoutExpired, OSError) as exc:
        raise ContenderUnavailableError(type(exc).__name__) from exc
    return done.stdout
