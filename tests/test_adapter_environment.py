"""Tests of adapters that need packages beyond the extra `dev`, in an environment that has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from adapter_environment import AdapterEnvironment, build_adapter_environment

from qwen3_triton.server.environment import SUPPORTED_PYTHONS

TESTS = ["client/test_langchain_conformance.py", "client/test_mteb.py"]
TESTS_ON_TRITON = ["end_to_end/test_mteb_on_triton.py"]


@pytest.fixture(scope="module")
def environment(project_root: Path) -> AdapterEnvironment:
    return build_adapter_environment(project_root)


@pytest.mark.slow
@pytest.mark.parametrize("file", TESTS + TESTS_ON_TRITON)
def test_all_pass(environment: AdapterEnvironment, file: str) -> None:
    if file in TESTS_ON_TRITON and sys.version_info[:2] not in SUPPORTED_PYTHONS:
        pytest.skip("the local Triton server does not run on this Python")
    summary = environment.run_tests(f"tests/{file}")
    assert "passed" in summary
    assert "skipped" not in summary
