"""NVIDIA's perf_analyzer as an independent load generator.

The format of its profile export, JSON with nanoseconds since the epoch, is documented with perf_analyzer.
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

from ..contenders.contender import ContenderUnavailableError, RunContext
from ..contenders.peer_environment import PeerEnvironment
from ..contenders.reasons import public_reason
from ..record import Request
from ..rows import Rows

VERSION = "2.48.0"
PERF_ANALYZER_DRIVER = f"perf_analyzer {VERSION}"
"""Name in records."""
_ENVIRONMENT = PeerEnvironment(name="perf_analyzer", pins=(f"tritonclient=={VERSION}", "numpy<2"))
_LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}
_STABLE_PERCENT = 999
"""Variation that perf_analyzer accepts; stability is judged by the record's own statistics."""
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """An installed perf_analyzer."""

    binary: Path
    libraries: Path

    def closed_loop(self, url: str, model: str, rows: Rows, in_flight: int, requests: int) -> list[Request]:
        """Send about `requests` requests of one row each over gRPC with a fixed concurrency.

        Args:
            url: gRPC address of the server.
            model: model name.
            rows: token ids, sent round-robin.
            in_flight: concurrent requests.
            requests: approximate number of requests.

        Returns:
            The requests, in the order of their start times.

        Raises:
            ContenderUnavailableError: if perf_analyzer fails.
        """
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
            # the file contains raw input bytes, which latin-1 decodes without errors
            text = profile.read_text(encoding="latin-1")
        try:
            return parse_profile(json.loads(text, strict=False))
        except (ValueError, KeyError) as exc:
            raise ContenderUnavailableError(
                f"perf_analyzer's profile is not what version {VERSION} writes ({exc!r})"
            ) from exc

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
            raise ContenderUnavailableError(f"perf_analyzer: {public_reason(lines[0])}") from exc
        except (subprocess.TimeoutExpired, OSError) as exc:
            raise ContenderUnavailableError(f"perf_analyzer: {type(exc).__name__}") from exc


def install_perf_analyzer(context: RunContext) -> PerfAnalyzer:
    """Install perf_analyzer from tritonclient's wheel and link the shared libraries that the wheel lacks.

    Raises:
        ContenderUnavailableError: if it cannot be installed.
    """
    peer = _ENVIRONMENT.build(context)
    libraries = context.cache / "environments" / "perf_analyzer-libraries"
    libraries.mkdir(exist_ok=True)
    _link_libraries(ensure_environment(context.log), libraries)
    return PerfAnalyzer(peer.python.parent / "perf_analyzer", libraries)


def try_perf_analyzer(context: RunContext, not_measured: dict[str, str], *, wanted: bool) -> PerfAnalyzer | None:
    """Install perf_analyzer if it is `wanted`; without it, add the reason to `not_measured` and return None."""
    if not wanted:
        not_measured[PERF_ANALYZER_DRIVER] = "not included in quick runs"
        return None
    try:
        return install_perf_analyzer(context)
    except ContenderUnavailableError as exc:
        context.log(f"{PERF_ANALYZER_DRIVER} cannot run: {exc}")
        not_measured[PERF_ANALYZER_DRIVER] = str(exc)
        return None


def parse_profile(exported: dict[str, Any]) -> list[Request]:
    """Return the completed requests of a profile export in the order of their start times, the first at 0 s."""
    (experiment,) = exported["experiments"]
    requests = [entry for entry in experiment["requests"] if entry["response_timestamps"]]
    first = min(entry["timestamp"] for entry in requests)
    return sorted(
        (
            Request(
                start_s=round((entry["timestamp"] - first) / 1e9, 6),
                latency_s=round((max(entry["response_timestamps"]) - entry["timestamp"]) / 1e9, 6),
                text_index=None,
                error=None,
            )
            for entry in requests
        ),
        key=lambda request: request.start_s,
    )


def _link_libraries(server: ServerEnvironment, folder: Path) -> None:
    """Link libraries from the server's wheel, where their names contain a hash."""
    available = server.site_packages / "nvidia_pytriton.libs"
    for name, pattern in _LIBRARIES.items():
        found: Sequence[Path] = sorted(available.glob(pattern))
        if not found:
            raise ContenderUnavailableError(f"perf_analyzer needs {name}, which is not among the server's libraries")
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(found[-1])
