"""Token rows and their vectors, the input and output of every contender."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Sequence[int]]
Vectors = NDArray[np.float32]
"""Unit vectors [n, hidden], or scores [n, 1]."""
