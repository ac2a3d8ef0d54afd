"""Triton releases and their ONNX Runtime, which determines the operators that a graph may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class RuntimeVersion:
    """A version of ONNX Runtime; versions are ordered."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> RuntimeVersion:
        """Parse a version such as `1.23.2` or `1.23.2+cu13`.

        Raises:
            ValueError: `text` does not start with a version.
        """
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if found is None:
            raise ValueError(f"'{text}' is not a version of ONNX Runtime")
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class TritonRelease(StrEnum):
    """Supported tags of the image `nvcr.io/nvidia/tritonserver:TAG-py3`. Older images lack required operators."""

    R25_08 = "25.08"
    R25_09 = "25.09"
    R25_10 = "25.10"
    R25_11 = "25.11"
    R25_12 = "25.12"
    R26_01 = "26.01"
    R26_02 = "26.02"
    R26_03 = "26.03"
    R26_04 = "26.04"
    R26_05 = "26.05"
    R26_06 = "26.06"
    R26_07 = "26.07"

    @property
    def runtime(self) -> RuntimeVersion:
        """ONNX Runtime version in the image, from build.py of Triton's release branches."""
        return _RUNTIMES[self]


_RUNTIMES = {
    TritonRelease.R25_08: RuntimeVersion(1, 23, 0),
    TritonRelease.R25_09: RuntimeVersion(1, 23, 0),
    TritonRelease.R25_10: RuntimeVersion(1, 23, 1),
    TritonRelease.R25_11: RuntimeVersion(1, 23, 2),
    TritonRelease.R25_12: RuntimeVersion(1, 23, 2),
    TritonRelease.R26_01: RuntimeVersion(1, 23, 2),
    TritonRelease.R26_02: RuntimeVersion(1, 24, 1),
    TritonRelease.R26_03: RuntimeVersion(1, 24, 2),
    TritonRelease.R26_04: RuntimeVersion(1, 24, 4),
    TritonRelease.R26_05: RuntimeVersion(1, 24, 4),
    TritonRelease.R26_06: RuntimeVersion(1, 24, 4),
    TritonRelease.R26_07: RuntimeVersion(1, 27, 0),
}

DEFAULT_RELEASE = TritonRelease.R25_11
OLDEST_RUNTIME = min(_RUNTIMES.values())
