"""Paths, a small disk and certificates that every test may use, and the tests that need the local Triton server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from certificates import CertificateAuthority

from qwen3_triton.server.environment import SUPPORTED_PYTHONS

ROOT = Path(__file__).resolve().parent.parent
NEED_TRITON = ["server", "end_to_end", "benchmarks/test_quick_run.py"]
HAS_TRITON = sys.version_info[:2] in SUPPORTED_PYTHONS

collect_ignore = [] if HAS_TRITON else NEED_TRITON


def pytest_report_header() -> str | None:
    """Name the tests that this Python cannot run."""
    if HAS_TRITON:
        return None
    return f"the local Triton server does not run on this Python: not collected are {', '.join(NEED_TRITON)}"


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Return an authority that issues certificates for TLS."""
    return CertificateAuthority.create(tmp_path_factory.mktemp("authority") / "ca")


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of a few MiB, which exists only for the code that `run` runs."""

    folder: Path
    size_kib: int = 4096

    def run(self, code: str, *arguments: object) -> Any:
        """Run Python code in a mount namespace of its own, and return the JSON value that it prints at the end.

        The code finds the path of the disk in `sys.argv[1]`, and `arguments` behind it.
        """
        done = subprocess.run(
            [*self._command(), sys.executable, "-c", code, *map(str, (self.folder, *arguments))],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def why_unavailable(self) -> str | None:
        """Return why this machine cannot mount a disk; None if it can."""
        if shutil.which("unshare") is None:
            return "there is no unshare"
        done = subprocess.run([*self._command(), "true"], capture_output=True, text=True, check=False)
        return done.stderr.strip() if done.returncode else None

    def _command(self) -> list[str]:
        mount = f'mount -t tmpfs -o size={self.size_kib}k none "$0" && exec "$@"'
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(self.folder)]


@pytest.fixture
def small_disk(tmp_path: Path) -> SmallDisk:
    """Return a disk that can be filled; skip the test where only the administrator may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder)
    reason = disk.why_unavailable()
    if reason is not None:
        pytest.skip(f"no disk can be mounted in a namespace: {reason}")
    return disk
