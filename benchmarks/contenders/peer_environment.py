"""Environments of the peers' own, since each needs other versions than this project runs on."""

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

from .contender import Bench, CannotRun
from .reasons import public_reason

TORCH = "torch==2.13.0"
_TIMEOUT_S = 1800
_MARK = "pins.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEnvironment:
    """What a peer's virtual environment holds."""

    name: str
    pins: tuple[str, ...]
    unwanted: tuple[str, ...] = ()
    """Packages that come along and must not stay."""

    def build(self, bench: Bench) -> InstalledPeer:
        """Builds it where it is missing or has other pins; raises CannotRun."""
        return build_environment(self, bench.cache / "environments" / self.name, bench.say)


class InstalledPeer:
    """A built environment."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin" / "python"

    def run(self, *arguments: str) -> str:
        """Standard output of its Python; raises CannotRun where it fails."""
        return _run([str(self.python), *arguments])


def build_environment(wanted: PeerEnvironment, folder: Path, say: Callable[[str], None]) -> InstalledPeer:
    """The environment in `folder`; raises CannotRun."""
    described = [*wanted.pins, *(f"without {name}" for name in wanted.unwanted)]
    mark = folder / _MARK
    peer = InstalledPeer(folder)
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == described:
        return peer
    shutil.rmtree(folder, ignore_errors=True)
    say(f"  making the environment {wanted.name}")
    _run([sys.executable, "-m", "venv", str(folder)])
    # torch first and alone: its index is then the one that holds the CPU build
    steps = ((TORCH,), wanted.pins) if TORCH in wanted.pins else (wanted.pins,)
    for pins in steps:
        say(f"  installing {', '.join(pins)}")
        require_no_cuda(_would_install(peer, pins))
        peer.run("-m", "pip", "install", "--quiet", *pins)
    if wanted.unwanted:
        peer.run("-m", "pip", "uninstall", "--quiet", "--yes", *wanted.unwanted)
    mark.write_text(json.dumps(described), encoding="utf-8")
    return peer


def require_no_cuda(packages: Iterable[str]) -> None:
    """Raises CannotRun where one of `packages` belongs to CUDA."""
    cuda = sorted(name for name in packages if re.match(r"(nvidia|cuda|triton$)", name.lower()))
    if cuda:
        raise CannotRun(f"{TORCH} would bring CUDA ({', '.join(cuda[:3])}, …); configure an index with its CPU build")


def _would_install(peer: InstalledPeer, pins: Sequence[str]) -> list[str]:
    report = peer.run("-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", *pins)
    return [entry["metadata"]["name"] for entry in json.loads(report)["install"]]


def _run(command: Sequence[str]) -> str:
    # exporters ask a hub for files that a local checkpoint lacks, and wait long where there is none
    variables = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True, env=variables)
    except subprocess.CalledProcessError as exc:
        lines = [line for line in exc.stderr.splitlines() if line.strip()] or ["no message"]
        raise CannotRun(public_reason(lines[-1])) from exc
    except (subprocess.TimeoutExpired, OSError) as exc:
        raise CannotRun(type(exc).__name__) from exc
    return done.stdout
