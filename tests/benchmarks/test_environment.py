"""The processor and the package versions in an environment."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest

from benchmarks.environment import describe_cpu, installed_versions, read_environment

_CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: {family}
model\t\t: 17
model name\t: AMD EPYC
stepping\t: 1

processor\t: 1
cpu family\t: 99
"""


def test_processor_generations_with_one_name_are_distinguished() -> None:
    assert describe_cpu(_CPUINFO.format(family=25)) == "AMD EPYC (family 25, model 17, stepping 1)"
    assert describe_cpu(_CPUINFO.format(family=26)) == "AMD EPYC (family 26, model 17, stepping 1)"


def test_processor_without_family_and_model_is_described_by_its_name() -> None:
    assert describe_cpu("model name : Neoverse-N1\n\nmodel name : other\n") == "Neoverse-N1"
    assert describe_cpu("")


def test_processor_of_this_machine_is_described() -> None:
    assert read_environment(threads=1).cpu


@pytest.mark.parametrize(
    ("providers", "package"),
    [(["CPUExecutionProvider"], "onnxruntime"), (["CUDAExecutionProvider", "CPUExecutionProvider"], "onnxruntime-gpu")],
)
def test_reported_runtime_is_the_imported_module(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], package: str
) -> None:
    # the installed metadata, which may be of the other package, has another version
    module = SimpleNamespace(__version__="9.8.7", get_available_providers=lambda: providers)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    assert installed_versions(["numpy", "onnxruntime"]) == {"numpy": version("numpy"), package: "9.8.7"}
    assert read_environment(threads=1).packages[package] == "9.8.7"


def test_missing_runtime_is_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PackageNotFoundError):
        installed_versions(["onnxruntime"])
