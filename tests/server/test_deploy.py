"""The compose file: flags, health check and metrics agree with a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from qwen3_triton.export.release import DEFAULT_RELEASE
from qwen3_triton.server import TritonServer
from qwen3_triton.server.environment import ensure_environment

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
GPU_METRICS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes"}
SUMMARIES = {"nv_inference_queue_summary_us", "nv_inference_compute_infer_summary_us"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_gpu_and_cpu_services_differ_only_in_the_gpu(services: dict[str, dict[str, Any]]) -> None:
    gpu, cpu = dict(services["triton-gpu"]), dict(services["triton-cpu"])
    assert (gpu.pop("profiles"), cpu.pop("profiles")) == (["gpu"], ["cpu"])
    [device] = gpu.pop("deploy")["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert gpu == cpu


def test_resources_are_unlimited_by_default_and_logs_are_rotated(services: dict[str, dict[str, Any]]) -> None:
    for name in ("triton-gpu", "triton-cpu"):
        service = services[name]
        assert (service["cpus"], service["mem_limit"]) == ("${CPUS:-0}", "${MEMORY:-0}")
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_image_is_the_default_release_of_exports(services: dict[str, dict[str, Any]]) -> None:
    assert services["triton-gpu"]["image"] == f"nvcr.io/nvidia/tritonserver:${{TRITON_RELEASE:-{DEFAULT_RELEASE}}}-py3"
    assert f"| `TRITON_RELEASE` | `{DEFAULT_RELEASE}` |" in (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_every_flag_is_one_of_tritonserver(services: dict[str, dict[str, Any]]) -> None:
    environment = ensure_environment()
    program, *flags = services["triton-gpu"]["command"]
    help_text = subprocess.run(
        [str(environment.triton / "bin" / program), "--help"],
        env=environment.variables(),
        capture_output=True,
        text=True,
    )
    known = set(re.findall(r"--[a-z-]+", help_text.stdout + help_text.stderr))
    assert {flag.partition("=")[0] for flag in flags} <= known
    # the container must not be killed while the server finishes its requests
    (grace,) = re.findall(r"(\d+)s", services["triton-gpu"]["stop_grace_period"])
    (exit_timeout,) = (int(flag.partition("=")[2]) for flag in flags if flag.startswith("--exit-timeout-secs="))
    assert int(grace) > exit_timeout


def test_health_check_detects_a_ready_server(server: TritonServer, services: dict[str, dict[str, Any]]) -> None:
    kind, program, *arguments = services["triton-gpu"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python3")

    def check(port: int) -> int:
        local = [argument.replace("localhost:8000", f"127.0.0.1:{port}") for argument in arguments]
        return subprocess.run([sys.executable, *local], capture_output=True).returncode

    assert check(server.addresses.http_port) == 0
    assert check(1) == 1


def test_documented_metrics_exist(server: TritonServer) -> None:
    named = set(re.findall(r"nv_[a-z_]+", (DEPLOY / "README.md").read_text(encoding="utf-8")))
    with urlopen(server.metrics_url, timeout=10) as reply:
        exposed = set(re.findall(r"^# HELP (\w+)", reply.read().decode(), flags=re.MULTILINE))
    assert named > GPU_METRICS | SUMMARIES
    # GPU metrics need a GPU, and summaries must be enabled
    assert named - GPU_METRICS - SUMMARIES <= exposed


def test_prometheus_scrapes_the_server_by_its_alias(services: dict[str, dict[str, Any]]) -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))
    [job] = scraped["scrape_configs"]
    [target] = job["static_configs"]
    (alias,) = services["triton-gpu"]["networks"]["default"]["aliases"]
    assert target["targets"] == [f"{alias}:8002"]
    assert "./prometheus.yaml:/etc/prometheus/prometheus.yml:ro" in services["prometheus"]["volumes"]
