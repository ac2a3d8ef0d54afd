"""Token rows and their vectors, as every contender and every worker takes and gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Sequence[int]]
Vectors = NDArray[np.float32]
"""[n, hidden]"""
