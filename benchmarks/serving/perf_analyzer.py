"""NVIDIA's perf_analyzer against a model: the same load by an independent driver.

Its profile export, JSON with nanoseconds since the epoch, is described in the documentation of perf_analyzer.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3_triton.server import ServerEnvironment, ensure_environment

from ..contenders.contender import Bench, CannotRun
from ..contenders.peer_environment import PeerEnvironment
from ..contenders.reasons import public_reason
from ..record import Request
from ..rows import Rows

VERSION = "2.48.0"
_ENVIRONMENT = PeerEnvironment(name="perf_analyzer", pins=(f"tritonclient=={VERSION}", "numpy<2"))
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_STABLE_PERCENT = 999
"""The spread that it accepts; how steady a load was is for the record's own statistics to say."""
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """An installed perf_analyzer."""

    binary: Path
    libraries: Path

    def closed_loop(self, url: str, model: str, rows: Rows, in_flight: int, requests: int) -> list[Request]:
        """About `requests` requests of one row each over gRPC, `in_flight` at any time; raises CannotRun."""
        with tempfile.TemporaryDirectory() as folder:
            data, profile = Path(folder) / "rows.json", Path(folder) / "profile.json"
            content = [{"input_ids": {"content": list(row), "shape": [len(row)]}} for row in rows]
            data.write_text(json.dumps({"data": content}), encoding="utf-8")
            self._run(
                *("-m", model, "-u", url, "-i", "grpc", "--async", "--input-data", str(data)),
                *("--concurrency-range", str(in_flight), "--measurement-mode", "count_windows"),
                *("--measurement-request-count", str(requests), "--max-trials", "3", "-s", str(_STABLE_PERCENT)),
                *("--profile-export-file", str(profile)),
            )
            # it copies raw input bytes into the file, which are no text in any encoding
            text = profile.read_text(encoding="latin-1")
        try:
            return parse_profile(json.loads(text, strict=False))
        except (ValueError, KeyError) as exc:
            raise CannotRun(f"perf_analyzer's profile is not what version {VERSION} writes ({exc!r})") from exc

    def _run(self, *arguments: str) -> None:
        paths = [str(self.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        variables = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(paths)}
        try:
            subprocess.run(
                [str(self.binary), *arguments],
                env=variables,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=True,
            )
        except subprocess.CalledProcessError as exc:
            lines = [line for line in (exc.stderr + exc.stdout).splitlines() if line.strip()] or ["no message"]
            raise CannotRun(f"perf_analyzer: {public_reason(lines[0])}") from exc
        except (subprocess.TimeoutExpired, OSError) as exc:
            raise CannotRun(f"perf_analyzer: {type(exc).__name__}") from exc


def install_perf_analyzer(bench: Bench) -> PerfAnalyzer:
    """The binary of tritonclient's wheel with the libraries that it lacks; raises CannotRun."""
    peer = _ENVIRONMENT.build(bench)
    libraries = bench.cache / "environments" / "perf_analyzer-libraries"
    libraries.mkdir(exist_ok=True)
    _link_libraries(ensure_environment(bench.say), libraries)
    return PerfAnalyzer(peer.python.parent / "perf_analyzer", libraries)


def parse_profile(exported: dict[str, Any]) -> list[Request]:
    """Requests of a profile export in the order of their starts, the first at 0 s; which row each had is not told."""
    (experiment,) = exported["experiments"]
    requests = [entry for entry in experiment["requests"] if entry["response_timestamps"]]
    first = min(entry["timestamp"] for entry in requests)
    return sorted(
        (
            Request(
                start_s=round((entry["timestamp"] - first) / 1e9, 6),
                latency_s=round((max(entry["response_timestamps"]) - entry["timestamp"]) / 1e9, 6),
                item=None,
                error=None,
            )
            for entry in requests
        ),
        key=lambda request: request.start_s,
    )


def _link_libraries(server: ServerEnvironment, folder: Path) -> None:
    """The server's wheel holds them under longer names."""
    held = server.site_packages / "nvidia_pytriton.libs"
    for name, pattern in _LIBRARIES.items():
        found: Sequence[Path] = sorted(held.glob(pattern))
        if not found:
            raise CannotRun(f"perf_analyzer needs {name}, which is not among the server's libraries")
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(found[-1])
