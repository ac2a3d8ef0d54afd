"""The inputs that Triton passes to an exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...client.manifest import INPUT_IDS, REQUEST_LENGTHS, ROW_LENGTHS


def batch_inputs(rows: Sequence[Sequence[int]]) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of a batch with one request of `rows`, each a sequence of token ids.

    Rows may differ in length; negative ids are padding. For several requests, Triton concatenates their rows and adds
    one entry per request to `request_lengths`.
    """
    ids = np.fromiter((token for row in rows for token in row), dtype=np.int64)
    return {
        INPUT_IDS: ids,
        ROW_LENGTHS: np.asarray([len(row) for row in rows], dtype=np.int32),
        REQUEST_LENGTHS: np.asarray([len(ids)], dtype=np.int32),
    }
