"""Names on the wire: tensors, parameters, tasks, devices and precisions."""

from __future__ import annotations

from enum import IntEnum, StrEnum

MANIFEST_PARAMETER = "manifest"
"""Key of the JSON in the `parameters` of `config.pbtxt`."""

TOKEN_BUDGET_PARAMETER = "max_batch_tokens"
"""Key of the most tokens of one batch in the `parameters` of `config.pbtxt`; absent where only rows are limited."""

INPUT_IDS = "input_ids"
"""INT64 `[rows, width]` on the wire: token ids; a negative id is padding at any position."""

ROW_LENGTHS = "row_lengths"
"""INT32 `[rows]`, added by Triton: the width of each row of the batch."""

REQUEST_LENGTHS = "request_lengths"
"""INT32 `[requests]`, added by Triton: number of ids in each request of the batch, padding included."""

LOST_ROW_BITS = 0x7FC00001
"""Bits of the NaN in a row whose ids did not reach the graph: the row may be valid, so send it again.

A row that is itself invalid has the ordinary quiet NaN, 0x7FC00000.
"""

ROW_STATUS = "row_status"
"""INT32 `[rows, 1]`, the second output of every model: a RowStatus for each row; earlier exports lack it."""

PADDING_ID = -1
"""Padding id that this client sends; every negative id means the same."""


class RowStatus(IntEnum):
    """Values of ROW_STATUS."""

    VALID = 0
    """The row has a result."""
    INVALID = 1
    """NaN: no token, an id outside the vocabulary, too many tokens, or an overflow inside the model."""
    LOST = 2
    """NaN: the row's ids did not reach the graph; send the row again."""


class Task(StrEnum):
    """What a model computes."""

    EMBED = "embed"
    RERANK = "rerank"

    @property
    def output(self) -> str:
        """Name of the FP32 output with the results: `embedding` `[rows, D]` or `score` `[rows, 1]`."""
        return "embedding" if self is Task.EMBED else "score"


class Device(StrEnum):
    """Device that a model is exported for."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Number format of the weights in the graph; the output is always FP32."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    """On GPUs only."""
    INT8 = "int8"
    """On a CPU: 8-bit weights and activations. On a GPU: 8-bit weight blocks with fp16 activations."""
