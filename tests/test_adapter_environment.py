"""Tests of adapters that need packages beyond the extra `dev`, in an environment that has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from adapter_environment import AdapterEnvironment, build_adapter_environment

from qwen3_triton.server.environment import SUPPORTED_PYTHONS

CONFORMANCE = "tests/client/test_langchain_conformance.py"
MTEB = "tests/client/test_mteb.py"
ON_TRITON = ("tests/end_to_end/test_integrations_page.py", "tests/end_to_end/test_mteb_on_triton.py")


@pytest.fixture(scope="module")
def environment(project_root: Path) -> AdapterEnvironment:
    return build_adapter_environment(project_root)


@pytest.mark.slow
@pytest.mark.parametrize("files", [(CONFORMANCE,), (MTEB,), ON_TRITON], ids=["langchain", "mteb", "on Triton"])
def test_all_pass(environment: AdapterEnvironment, files: tuple[str, ...]) -> None:
    if files == ON_TRITON and sys.version_info[:2] not in SUPPORTED_PYTHONS:
        pytest.skip("the local Triton server does not run on this Python")
    summary = environment.run_tests(*files)
    assert "passed" in summary
    assert "skipped" not in summary
