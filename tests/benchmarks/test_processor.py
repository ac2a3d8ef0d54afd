"""Instructions, cores, and the layouts of programs on them."""

from __future__ import annotations

import os

from fake_processors import HASWELL, SKYLAKE, ZEN_4

from benchmarks.contenders.layout import Layout, layouts
from benchmarks.processor import parse_processor, processors_by_core, read_processor

_INFO = """processor	: 0
model name	: A processor
siblings	: 16
cpu cores	: 8
flags		: fpu avx2 avx512f avx512_bf16

processor	: 1
flags		: fpu
"""


def test_processor_is_read_from_the_text_of_linux() -> None:
    found = parse_processor(_INFO)
    assert found.flags == {"fpu", "avx2", "avx512f", "avx512_bf16"}
    assert found.threads_per_core == 2
    assert found.has_bf16 and not found.has_vnni and not found.has_avx512_core
    arm = parse_processor("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert arm.is_arm and arm.has_bf16 and arm.threads_per_core == 1
    assert parse_processor("").flags == frozenset()
    assert read_processor().threads_per_core >= 1


def test_every_usable_logical_processor_is_listed_once() -> None:
    assert sorted(processors_by_core()) == sorted(os.sched_getaffinity(0))


def test_default_layout_is_one_copy_with_all_threads() -> None:
    assert [layout.name for layout in layouts(ZEN_4, 1)] == ["1 thread", "1 thread, pinned"]
    assert [layout.name for layout in layouts(HASWELL, 8)] == [
        "8 threads",
        "8 threads, pinned",
        "2 copies, 4 threads each",
        "4 copies, 2 threads each",
        "8 copies, 1 thread each",
        *("4 threads", "2 threads", "1 thread"),
    ]


def test_one_thread_per_core_is_tried_where_logical_processors_share_cores() -> None:
    assert [layout.name for layout in layouts(SKYLAKE, 4)] == [
        "4 threads",
        "4 threads, pinned",
        "2 copies, 2 threads each",
        "4 copies, 1 thread each",
        "2 threads",
        "2 threads, pinned",
        "2 copies, 1 thread each",
        "1 thread",
    ]


def test_layout_is_passed_to_workers_as_text() -> None:
    layout = Layout(copies=2, threads=3)
    assert layout.options() == {"threads": "3", "copies": "2", "pinned": "no"}
