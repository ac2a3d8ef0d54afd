"""Paths that every test may use, and the tests that need the local Triton server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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
