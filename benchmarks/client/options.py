"""Sizes and durations of the part client."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from qwen3_triton.client import Precision

from ..samples import MIN_REPETITIONS
from ..text_tokenizer import TextTokenizer
from ..workload import LogNormalLengths, Workload

_FEWEST = 2
_SHORT = LogNormalLengths(texts=_FEWEST, shortest=8, longest=24, median=14, sigma=0.3)
_LONG = LogNormalLengths(texts=_FEWEST, shortest=13, longest=173, median=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Calls, loads and repetitions."""

    precision: Precision = Precision.INT8
    texts_per_call: tuple[int, ...] = (32, 64, 256)
    """Short texts of the calls whose processor time is measured."""
    texts_per_repetition: int = 512
    """Short texts of one repetition, all different; calls have no more."""
    bulk_lengths: LogNormalLengths = _LONG
    """Lengths of the texts of a bulk job, those of the workload mix; their number follows from `bulk_s`."""
    bulk_s: float = 8.0
    """Approximate duration of a call with many texts."""
    fewest_texts: int = 128
    """Texts of the call that measures the server's speed, and the fewest of a bulk job."""
    most_texts: int = 8192
    in_flight: int = 64
    """Requests of single texts in flight."""
    load_s: float = 5.0
    """Approximate duration of one repetition of single texts."""
    repetitions: int = MIN_REPETITIONS
    import_turns: int = 21
    """Processes with the import, and as many without it."""
    perf_analyzer: bool = True
    tokenizer: TextTokenizer | None = None
    """Tokenizer of the checkpoint; None is a byte-level tokenizer."""

    @classmethod
    def quick(cls) -> ClientOptions:
        """Return the smallest options that exercise every measurement."""
        return cls(
            precision=Precision.FP32,
            texts_per_call=(8,),
            texts_per_repetition=16,
            bulk_lengths=_SHORT,
            bulk_s=0.2,
            fewest_texts=32,
            most_texts=64,
            in_flight=4,
            load_s=0.2,
            repetitions=2,
            import_turns=2,
            perf_analyzer=False,
        )


def bulk_workload(options: ClientOptions, count: int) -> Workload:
    """Return a workload of `count` texts."""
    return Workload(name="bulk", seed=778, lengths=dataclasses.replace(options.bulk_lengths, texts=count))


def short_workload(options: ClientOptions) -> Workload:
    """Return the workload of short texts."""
    return Workload(name="short", seed=32, lengths=dataclasses.replace(_SHORT, texts=options.texts_per_repetition))
