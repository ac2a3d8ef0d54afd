"""`python -m benchmarks gpu` on a machine without a GPU: errors, and a dry run with few packages installed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sample_record import sample_record
from typer.testing import CliRunner

from benchmarks.__main__ import OUTPUT_VARIABLE, app
from benchmarks.contenders import ContenderUnavailableError, gpu_recipes
from benchmarks.contenders.worker import Worker
from benchmarks.cuda_session import NotOnGpuError, kernel_name, open_cuda_session
from benchmarks.environment import Gpu
from benchmarks.record import CopyProbe, Record, Sample
from benchmarks.record_file import read_json, read_record, write_record
from benchmarks.report import render_record
from benchmarks.roofline import COPIED_BYTES
from benchmarks.tables import memory_copy_table
from benchmarks.workload import GPU_STANDARD, WORKLOADS
from qwen3_triton.export import RuntimeVersion

GPU = Gpu(name="A GPU", memory_bytes=80 * 10**9, driver="580.1", cuda="13.0", providers="CUDAExecutionProvider")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
# hides the packages that a GPU run does not need
_WITHOUT_OPTIONAL_PACKAGES = """
import importlib.abc, runpy, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tritonclient", "grpc", "peft", "matplotlib", "optimum", "openvino"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Record:
    cache = tmp_path_factory.mktemp("cache")
    contenders = ["--contender", "fp16", "--contender", "int8 rows", "--contender", "transformers"]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_OPTIONAL_PACKAGES, "gpu", "--dry", "--cache", str(cache), *contenders],
        cwd=project_root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(project_root), OUTPUT_VARIABLE: str(cache / "records")},
    )
    assert done.returncode == 0, done.stderr
    assert "memory copies alone" in done.stdout
    (file,) = (cache / "records").glob("*-gpu-dry-part.json.xz")
    assert str(cache) not in read_json(file).decode()
    return read_record(file)


@pytest.mark.slow
def test_dry_run_measures_what_a_cpu_supports(record: Record) -> None:
    (comparison,) = record.comparisons
    programs = {entry.program: entry for entry in comparison.entries}
    transformers = {"transformers bf16", "transformers fp16"}
    assert programs.keys() == {"qwen3-triton fp16 rows", "qwen3-triton int8 rows", *transformers}
    # paged attention does not exist on CPUs
    assert comparison.not_measured.keys() == {"qwen3-triton fp16 pages"}
    for entry in comparison.entries:
        assert entry.min_cosine is not None
        assert entry.min_cosine > 0.999
        assert (len(entry.samples), len(entry.warmups)) == (7, 3)
        assert all(sample.wall_s > 0 for sample in entry.samples)
    exact = programs["qwen3-triton fp16 rows"].min_cosine
    assert exact is not None
    assert exact > 0.99999
    assert [programs[name].arithmetic for name in sorted(programs)] == ["fp16", "fp16", "bf16", "fp16"]


@pytest.mark.slow
def test_dry_run_records_probes_and_profile(record: Record) -> None:
    (comparison,) = record.comparisons
    assert {probe.program for probe in comparison.matmuls} == {"torch bf16", "torch fp16"}
    (copy,) = comparison.memory_copies
    assert (copy.program, copy.bytes, len(copy.samples)) == ("torch copy", 2 * COPIED_BYTES, 7)
    assert comparison.profile_us["qwen3-triton int8 rows"]["MatMulNBits"] > 0


@pytest.mark.slow
def test_record_of_a_dry_run_is_marked(record: Record) -> None:
    assert record.environment.gpu is None
    assert record.not_measured.keys() == {"GPU"}


@no_gpu
def test_missing_gpu_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["gpu", "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 1
    [line] = result.output.strip().splitlines()
    assert line.startswith("no usable GPU: torch ")
    assert "finds no CUDA device" in line
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workload", "none"), "'none' is not one of"),
        (("--model", "none"), "'none' is not one of"),
        (("--triton-release", "20.01"), "'20.01' is not one of 25.08"),
        (("--contender", "none"), "no program has such a name"),
    ],
)
def test_invalid_arguments_are_named(arguments: tuple[str, str], message: str) -> None:
    result = CliRunner().invoke(app, ["gpu", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


@no_gpu
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_session_that_falls_back_to_the_cpu_is_rejected(tmp_path: Path) -> None:
    from benchmarks.workers.roofline import _onnx_model

    file = tmp_path / "model.onnx"
    file.write_bytes(_onnx_model({"product": (4, 4)}, "fp32"))
    with pytest.raises(NotOnGpuError, match="fell back to CPUExecutionProvider"):
        open_cuda_session(file, 1, {"use_tf32": "0"})
    options = {"model": str(file), "threads": "1", "device": "cuda", "provider": '{"use_tf32": "0"}'}
    with pytest.raises(
        ContenderUnavailableError, match="NotOnGpuError: ONNX Runtime fell back to CPUExecutionProvider"
    ):
        Worker("packed_graph", options).embed([[1]], 1)


def test_gpu_and_memory_copies_are_stored_and_reported(tmp_path: Path) -> None:
    plain = sample_record()
    memory_copies = (CopyProbe(program="torch copy", bytes=3 * 10**12, samples=(Sample(wall_s=1.0, cpu_s=1.0),)),)
    on_gpu = dataclasses.replace(
        plain,
        environment=dataclasses.replace(plain.environment, gpu=GPU),
        comparisons=(dataclasses.replace(plain.comparisons[0], memory_copies=memory_copies),),
    )
    file = tmp_path / "record.json"
    write_record(on_gpu, file)
    assert read_record(file) == on_gpu
    assert "A GPU (80 GB, driver 580.1, CUDA 13.0)" in render_record(on_gpu)
    assert memory_copy_table(on_gpu.comparisons[0]).rows == (("torch copy", "3,000", "3,000 to 3,000"),)


def test_kernel_names_omit_template_arguments() -> None:
    assert kernel_name("void onnxruntime::flash::flash_fwd_kernel<Traits<128, 64>, true>(Params)") == (
        "onnxruntime::flash::flash_fwd_kernel"
    )
    assert kernel_name("void (anonymous namespace)::elementwise(int)") == "elementwise"
    assert kernel_name("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT") == "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT"
    assert kernel_name("Memcpy DtoD (Device -> Device)") == "Memcpy DtoD"


def test_workloads_of_equal_lengths_match_their_names() -> None:
    assert {"mix", "256-of-16", "256-of-64", "64-of-256", "32-of-512", "16-of-1024", "4-of-4096"} <= set(GPU_STANDARD)
    for name in GPU_STANDARD:
        rows = WORKLOADS[name].rows(512)
        if "-of-" in name:
            texts, _, tokens = name.partition("-of-")
            assert [len(row) for row in rows] == [int(tokens)] * int(texts)


def test_most_important_programs_and_workloads_come_first() -> None:
    programs = [recipe.program for recipe in gpu_recipes(RuntimeVersion(1, 23, 2), compiled=True)]
    graphs = [f"qwen3-triton {precision} {layout}" for precision in ("bf16", "int8") for layout in ("rows", "pages")]
    peers = ["transformers bf16", "transformers fp16"]
    first = ["qwen3-triton fp16 rows", "qwen3-triton fp16 pages", *peers]
    assert programs == [*first, *graphs, *(f"{peer}, torch.compile" for peer in peers)]
    assert GPU_STANDARD[:2] == ("mix", "256-of-64")
    assert GPU_STANDARD[-1] == "mix-256"
    assert len(set(GPU_STANDARD)) == len(GPU_STANDARD)


def test_torch_is_imported_before_the_runtime_that_opens_a_cuda_session() -> None:
    script = (
        "import sys; import {}; order = list(sys.modules); print(order.index('torch') < order.index('onnxruntime'))"
    )
    for module in ("benchmarks.cuda_session", "benchmarks.workers.packed_graph, benchmarks.cuda_session"):
        done = subprocess.run([sys.executable, "-c", script.format(module)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "True"
