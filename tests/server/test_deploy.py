"""The compose file: its flags, its health check and its metrics are those of a real server."""

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
OF_GPUS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes"}
SUMMARIES = {"nv_inference_queue_summary_us", "nv_inference_compute_infer_summary_us"}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    compose: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_gpu_and_cpu_differ_by_the_gpu_alone(services: dict[str, dict[str, Any]]) -> None:
    gpu, cpu = dict(services["triton-gpu"]), dict(services["triton-cpu"])
    assert (gpu.pop("profiles"), cpu.pop("profiles")) == (["gpu"], ["cpu"])
    [device] = gpu.pop("deploy")["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert gpu == cpu


def test_image_is_the_one_that_exports_are_for(services: dict[str, dict[str, Any]]) -> None:
    assert services["triton-gpu"]["image"] == f"nvcr.io/nvidia/tritonserver:${{TRITON_RELEASE:-{DEFAULT_RELEASE}}}-py3"
    assert f"| `TRITON_RELEASE` | `{DEFAULT_RELEASE}` |" in (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_every_flag_is_one_of_tritonserver(services: dict[str, dict[str, Any]]) -> None:
    environment = ensure_environment()
    program, *flags = services["triton-gpu"]["command"]
    told = subprocess.run(
        [str(environment.triton / "bin" / program), "--help"],
        env=environment.variables(),
        capture_output=True,
        text=True,
    )
    known = set(re.findall(r"--[a-z-]+", told.stdout + told.stderr))
    assert {flag.partition("=")[0] for flag in flags} <= known
    # a stop must not be cut short while requests are being answered
    (grace,) = re.findall(r"(\d+)s", services["triton-gpu"]["stop_grace_period"])
    (patience,) = (int(flag.partition("=")[2]) for flag in flags if flag.startswith("--exit-timeout-secs="))
    assert int(grace) > patience


def test_health_check_tells_a_ready_server_from_none(server: TritonServer, services: dict[str, dict[str, Any]]) -> None:
    kind, program, *arguments = services["triton-gpu"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python3")

    def check(port: int) -> int:
        here = [argument.replace("localhost:8000", f"127.0.0.1:{port}") for argument in arguments]
        return subprocess.run([sys.executable, *here], capture_output=True).returncode

    assert check(server.addresses.http_port) == 0
    assert check(1) == 1


def test_metrics_worth_watching_exist(server: TritonServer) -> None:
    named = set(re.findall(r"nv_[a-z_]+", (DEPLOY / "README.md").read_text(encoding="utf-8")))
    with urlopen(server.metrics_url, timeout=10) as reply:
        told = set(re.findall(r"^# HELP (\w+)", reply.read().decode(), flags=re.MULTILINE))
    assert named > OF_GPUS | SUMMARIES
    # a machine without a GPU has no metrics of one, and summaries must be asked for
    assert named - OF_GPUS - SUMMARIES <= told


def test_prometheus_asks_the_server_by_its_alias(services: dict[str, dict[str, Any]]) -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))
    [job] = scraped["scrape_configs"]
    [target] = job["static_configs"]
    (alias,) = services["triton-gpu"]["networks"]["default"]["aliases"]
    assert target["targets"] == [f"{alias}:8002"]
    assert "./prometheus.yaml:/etc/prometheus/prometheus.yml:ro" in services["prometheus"]["volumes"]
