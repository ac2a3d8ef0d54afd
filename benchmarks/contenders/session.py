"""ONNX Runtime sessions on the CPU, and their profiles."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Feed = dict[str, NDArray[np.generic]]


def open_session(model: Path | bytes, threads: int, profile: Path | None = None) -> Any:
    """Open a CPU session whose threads stop spinning after each run, so that they do not slow down the next contender.

    Args:
        model: ONNX file or serialized model.
        threads: intra-op threads.
        profile: folder for a profile; None disables profiling.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "profile")
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def profile_operators(model: Path, threads: int, feed: Feed, passes: int = 3) -> dict[str, int]:
    """Return the microseconds per pass spent in each operator, largest first; see `exclusive_durations`."""
    with TemporaryDirectory() as folder:
        session = open_session(model, threads)
        session.run(None, feed)
        session = open_session(model, threads, Path(folder))
        for _ in range(passes):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    total: Counter[str] = Counter()
    for event in exclusive_durations(events):
        total.update(event)
    return {name: duration // passes for name, duration in total.most_common()}


def exclusive_durations(events: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Return {operator: microseconds} of each kernel in an ONNX Runtime profile, excluding kernels of its subgraph."""
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    kernels.sort(key=lambda event: (event["ts"], -event["dur"]))
    durations: list[dict[str, int]] = []
    enclosing: list[tuple[int, int]] = []
    for event in kernels:
        operator, start, length = event["args"]["op_name"], int(event["ts"]), int(event["dur"])
        while enclosing and enclosing[-1][1] <= start:
            enclosing.pop()
        if enclosing:
            outer = durations[enclosing[-1][0]]
            outer.update({name: spent - length for name, spent in outer.items()})
        if operator in ("Loop", "If", "Scan"):
            enclosing.append((len(durations), start + length))
        durations.append({operator: length})
    return durations
