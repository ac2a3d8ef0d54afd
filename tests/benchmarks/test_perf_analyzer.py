"""Parsing of perf_analyzer's profile export."""

from __future__ import annotations

from benchmarks.serving.perf_analyzer import parse_profile


def test_start_times_are_relative_to_the_first_request() -> None:
    exported = {
        "experiments": [
            {
                "requests": [
                    {"timestamp": 3_000_000_000, "response_timestamps": [3_250_000_000]},
                    {"timestamp": 1_000_000_000, "response_timestamps": [1_500_000_000]},
                    {"timestamp": 4_000_000_000, "response_timestamps": []},
                ]
            }
        ]
    }
    first, second = parse_profile(exported)
    assert (first.start_s, first.latency_s) == (0.0, 0.5)
    assert (second.start_s, second.latency_s) == (2.0, 0.25)
    assert first.text_index is None
    assert first.error is None
