"""Start, failure and stop of a real Triton: messages, and that no processes or shared memory remain."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import tritonclient.grpc as grpc
from leftovers import await_nothing_left, child_of, processes_of, shared_memory_of

from qwen3_triton.server import (
    EmptyRepositoryError,
    InvalidAddressError,
    InvalidModelNameError,
    LocalServerError,
    ModelControl,
    ModelLoadError,
    PortInUseError,
    ServerExitedError,
    ServerOptions,
    TritonServer,
    start_triton,
)
from qwen3_triton.server.supervise import SHARED_MEMORY, StubWatch, shared_memory_prefix

SERVE = "from qwen3_triton.cli.main import run; run()"
EXIT_TIMEOUT_S = 20


@contextmanager
def serving(repository: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a separate process until the server is ready; kill it at the end if it still runs."""
    ports = free_ports(3)
    command = [*serve_command(repository, *ports), "--verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("ready: "), line + process.stderr.read() if process.stderr else line
            assert f"127.0.0.1:{ports[0]}" in process.stdout.readline()
            yield process
        finally:
            process.kill()


def serve_command(repository: Path, grpc_port: int, http_port: int, metrics_port: int) -> list[str]:
    ports = [f"--grpc-port={grpc_port}", f"--http-port={http_port}", f"--metrics-port={metrics_port}"]
    return [sys.executable, "-c", SERVE, "serve", str(repository), *ports]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def triton_of(supervisor: int) -> int:
    (pid,) = (pid for pid, command in processes_of(supervisor).items() if "/bin/tritonserver " in command)
    return pid


def stub_of(supervisor: int, instance: str = "sums_0_0") -> int:
    (pid,) = (pid for pid, command in processes_of(supervisor).items() if f" {instance} " in command)
    return pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_stops_cleanly(sums_repository: Path, number: signal.Signals) -> None:
    with serving(sums_repository) as process:
        supervisor = child_of(process.pid)
        assert len(processes_of(supervisor)) == 2  # tritonserver and one stub
        assert shared_memory_of(supervisor)
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(EXIT_TIMEOUT_S) == 0
        assert not processes_of(supervisor)
        assert not shared_memory_of(supervisor)


def test_command_stops_cleanly_while_it_loads(sums_repository: Path) -> None:
    command = serve_command(sums_repository, *free_ports(3))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "loading sums\n"
        time.sleep(0.1)
        supervisor = child_of(process.pid)
        process.terminate()
        assert process.wait(EXIT_TIMEOUT_S) == 0
    await_nothing_left(supervisor)


def test_no_process_outlives_a_killed_caller(sums_repository: Path) -> None:
    with serving(sums_repository) as process:
        supervisor = child_of(process.pid)
        process.kill()
        await_nothing_left(supervisor)


def kill_triton(server: TritonServer) -> None:
    os.kill(triton_of(server.pid), signal.SIGKILL)


def kill_supervisor(server: TritonServer) -> None:
    os.kill(server.pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_triton, kill_supervisor])
def test_killed_server_is_reported_and_leaves_nothing(
    sums_repository: Path, kill: Callable[[TritonServer], None]
) -> None:
    with start_triton(sums_repository) as server:
        kill(server)
        with pytest.raises(ServerExitedError, match="exited unexpectedly"):
            server.wait()
        await_nothing_left(server.pid, shared_memory=False)
    assert not shared_memory_of(server.pid)
    server.stop()


def test_no_stub_outlives_a_killed_supervisor_while_it_computes(sums_repository: Path) -> None:
    tiny_models.write_slow(sums_repository)
    with start_triton(sums_repository) as server, grpc.InferenceServerClient(server.grpc_url) as client:
        tensor = grpc.InferInput("input_ids", [1, 64], "INT64")
        tensor.set_data_from_numpy(np.ones((1, 64), np.int64))
        for _ in range(20):
            client.async_infer("slow", [tensor], callback=lambda **_: None)
        while client.get_inference_statistics("slow").model_stats[0].inference_count == 0:
            time.sleep(0.01)
        kill_supervisor(server)
        await_nothing_left(server.pid, shared_memory=False)


def test_command_ends_with_the_reason_if_a_stub_is_killed(sums_repository: Path) -> None:
    with serving(sums_repository) as process:
        supervisor = child_of(process.pid)
        os.kill(stub_of(supervisor), signal.SIGKILL)
        assert process.wait(EXIT_TIMEOUT_S) == 1
        assert process.stderr is not None
        *log, line = process.stderr.read().splitlines()
        assert any("successfully loaded 'sums'" in logged for logged in log)
        assert re.match(r"error: the process of .*model instance.* was killed by signal 9", line)
        await_nothing_left(supervisor)


def test_stub_that_stays_stopped_is_a_failure(server: TritonServer) -> None:
    stub = stub_of(server.pid, "sums_0_0")
    watch = StubWatch(triton_of(server.pid))
    os.kill(stub, signal.SIGSTOP)
    try:
        while Path(f"/proc/{stub}/stat").read_text().split()[2] != "T":
            time.sleep(0.01)
        assert watch.find_failure() is None
        failures = [watch.find_failure() for _ in range(50)]
    finally:
        os.kill(stub, signal.SIGCONT)
    assert (
        failures[-1] == "the process of model instance sums_0_0 was stopped by a signal and did not continue within 5 s"
    )
    while Path(f"/proc/{stub}/stat").read_text().split()[2] == "T":
        time.sleep(0.01)
    assert watch.find_failure() is None


def test_stub_of_a_model_that_was_loaded_later_is_watched(sums_repository: Path) -> None:
    options = ServerOptions(model_control=ModelControl.EXPLICIT)
    with start_triton(sums_repository, options) as server, grpc.InferenceServerClient(server.grpc_url) as client:
        watch = StubWatch(triton_of(server.pid))
        tiny_models.write_lookup(sums_repository)
        client.load_model("lookup")
        stub = stub_of(server.pid, "lookup_0_0")
        assert [watch.find_failure() for _ in range(60)] == [None] * 60
        # the supervisor's own watch would end the server
        stop_supervisor(server.pid)
        os.kill(stub, signal.SIGKILL)
        while Path(f"/proc/{stub}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
        failures = [watch.find_failure() for _ in range(10)]
        os.kill(server.pid, signal.SIGCONT)
        assert failures[-1] is not None
        assert failures[-1].startswith("the process of model instance lookup_0_0 was killed by signal 9")


def test_unloaded_models_are_not_failures(sums_repository: Path) -> None:
    tiny_models.write_lookup(sums_repository)
    options = ServerOptions(model_control=ModelControl.EXPLICIT)
    with start_triton(sums_repository, options) as server, grpc.InferenceServerClient(server.grpc_url) as client:
        watch = StubWatch(triton_of(server.pid))
        client.unload_model("lookup")
        while client.is_model_ready("lookup"):
            time.sleep(0.01)
        assert [watch.find_failure() for _ in range(60)] == [None] * 60
        assert server.running


def stop_supervisor(supervisor: int) -> None:
    """Stop a supervisor, which continues on SIGCONT."""
    os.kill(supervisor, signal.SIGSTOP)
    while Path(f"/proc/{supervisor}/stat").read_text().split()[2] != "T":
        time.sleep(0.01)


def test_next_start_removes_shared_memory_of_exited_servers(sums_repository: Path) -> None:
    with subprocess.Popen(["true"]) as exited:
        exited.wait()
    stale = SHARED_MEMORY / f"{shared_memory_prefix(exited.pid)}stale"
    living = SHARED_MEMORY / f"{shared_memory_prefix(os.getpid())}living"
    stale.touch()
    living.touch()
    try:
        start_triton(sums_repository).stop()
        assert not stale.exists()
        assert living.exists()
    finally:
        living.unlink()


def listening_addresses(port: int) -> set[str]:
    """Return the addresses with a listener on `port` in the kernel's notation; mapped IPv6 addresses as IPv4."""
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [fields[1].split(":") for fields in lines if fields[3] == "0A"]
    return {address[-8:] for address, listened in listening if int(listened, 16) == port}


def test_listens_on_loopback_only(server: TritonServer) -> None:
    addresses = server.addresses
    for port in (addresses.grpc_port, addresses.http_port, addresses.metrics_port):
        assert listening_addresses(port) == {"0100007F"}
    with urllib.request.urlopen(f"{server.http_url}/v2/health/ready") as response:
        assert response.status == 200
    with urllib.request.urlopen(server.metrics_url) as response:
        assert b"nv_inference_count" in response.read()


def test_port_in_use_is_reported_before_anything_starts(sums_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"port {port} .*another http_port") as caught:
            start_triton(sums_repository, ServerOptions(http_port=port))
    assert (caught.value.port, caught.value.option) == (port, "http_port")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_host_of_another_machine_is_rejected(sums_repository: Path, host: str) -> None:
    with pytest.raises(InvalidAddressError, match="host") as caught:
        start_triton(sums_repository, ServerOptions(host=host))
    assert caught.value.option == "host"


def test_models_that_do_not_load_are_reported_with_their_cause(sums_repository: Path) -> None:
    (sums_repository / "sums" / "config.pbtxt").write_text('name: "sums" nonsense: 1')
    (tiny_models.write_sums(sums_repository, "broken") / "1" / "model.onnx").write_bytes(b"not a graph")
    (tiny_models.write_sums(sums_repository, "empty") / "1" / "model.onnx").unlink()
    (sums_repository / "empty" / "1").rmdir()
    misnamed = tiny_models.write_sums(sums_repository, "misnamed") / "config.pbtxt"
    misnamed.write_text(misnamed.read_text().replace('"total"', '"vector"'))
    tiny_models.write_sums(sums_repository, "fine")

    with pytest.raises(ModelLoadError, match="4 of 5 models did not load") as caught:
        start_triton(sums_repository)

    causes = caught.value.causes
    assert causes.keys() == {"sums", "broken", "empty", "misnamed"}
    assert "nonsense" in causes["sums"]
    assert "protobuf" in causes["broken"].lower()
    assert "version" in causes["empty"]
    assert causes["misnamed"] == "config.pbtxt has the output vector, but the graph has total"
    assert "\n" not in str(caught.value)


def test_repository_without_models_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(EmptyRepositoryError, match="export"):
        start_triton(tmp_path / "missing")
    (tmp_path / "README.md").touch()
    with pytest.raises(EmptyRepositoryError, match="export"):
        start_triton(tmp_path)


def test_repository_with_any_path(tmp_path: Path) -> None:
    repository = tmp_path / "a path, \"quoted\" 'twice',\n$(of) [more] lines; ümläute \udcff" / "repository"
    tiny_models.write_sums(repository)
    tiny_models.write_batch_totals(repository, max_batch_tokens=64)
    with start_triton(repository) as server, grpc.InferenceServerClient(server.grpc_url) as client:
        assert server.models == ("sums", "totals")
        tensor = grpc.InferInput("input_ids", [1, 3], "INT64")
        tensor.set_data_from_numpy(np.ones((1, 3), np.int64))
        assert client.infer("sums", [tensor]).as_numpy("total") == 3


@pytest.mark.parametrize("name", ["my model", "modèle", "a'b"])
def test_name_that_the_server_cannot_load(sums_repository: Path, name: str) -> None:
    tiny_models.write_sums(sums_repository, name)
    with pytest.raises(InvalidModelNameError, match=re.escape(repr(name))):
        start_triton(sums_repository)


def test_log_that_cannot_be_written(sums_repository: Path) -> None:
    (sums_repository.parent / "file").touch()
    with pytest.raises(LocalServerError, match="choose another log_file"):
        start_triton(sums_repository, ServerOptions(log_file=sums_repository.parent / "file" / "triton.log"))


def test_two_servers_run_at_the_same_time(server: TritonServer, sums_repository: Path, tmp_path: Path) -> None:
    log_file = tmp_path / "logs" / "triton.log"
    shown: list[str] = []
    with start_triton(sums_repository, ServerOptions(log_file=log_file), show_log=shown.append) as other:
        assert other.grpc_url != server.grpc_url
        assert other.models == ("sums",)
        other.stop()
        assert server.running
    assert "successfully loaded 'sums'" in log_file.read_text()
    assert shown == log_file.read_text().splitlines()
