"""Settings of ONNX Runtime sessions on the CPU that several workers share."""

from __future__ import annotations

import os

import onnxruntime

from ..processor import processors_by_core
from .serve import Options


def session_options(options: Options) -> onnxruntime.SessionOptions:
    """Return options of a session with `threads` threads, which stay on one core each if `pinned` is yes.

    Its threads stop spinning after each run, so that they do not slow down the next contender.
    """
    threads = int(options["threads"])
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if options.get("pinned") == "yes":
        # the calling thread is one of the threads; the others are numbered from 1
        own, *others = processors_by_core()[:threads]
        os.sched_setaffinity(0, {own})
        if others:
            affinities = ";".join(str(number + 1) for number in others)
            settings.add_session_config_entry("session.intra_op_thread_affinities", affinities)
    return settings
