"""What stands on the wire: the names of tensors, and what a model can be."""

from __future__ import annotations

from enum import StrEnum

MANIFEST_PARAMETER = "manifest"
"""Key of the JSON in the `parameters` of `config.pbtxt`."""

TOKEN_BUDGET_PARAMETER = "max_batch_tokens"
"""Key of the most tokens of one batch in the `parameters` of `config.pbtxt`; absent where only rows are limited."""

INPUT_IDS = "input_ids"
"""INT64 `[rows, width]` on the wire: token ids, a negative id is padding wherever it stands."""

ROW_LENGTHS = "row_lengths"
"""INT32 `[rows]`, added by Triton: the width of each row of the batch."""

REQUEST_LENGTHS = "request_lengths"
"""INT32 `[requests]`, added by Triton: number of ids in each request of the batch, padding included."""

LOST_ROW_BITS = 0x7FC00001
"""Bits of the NaN in a row whose ids did not reach the graph: the row itself may be fine, and can be sent again.

A row that is itself invalid has the ordinary quiet NaN, 0x7FC00000.
"""

PADDING_ID = -1
"""What this project's client pads with; every negative id means the same."""


class Task(StrEnum):
    """What a model answers with."""

    EMBED = "embed"
    RERANK = "rerank"

    @property
    def output(self) -> str:
        """Name of the FP32 output: `embedding` `[rows, D]` or `score` `[rows, 1]`."""
        return "embedding" if self is Task.EMBED else "score"


class Device(StrEnum):
    """Where the model runs."""

    CPU = "cpu"
    CUDA = "cuda"


class Precision(StrEnum):
    """Number format of the weights inside the graph; the output is FP32 in every one."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    """On GPUs only."""
    INT8 = "int8"
    """On a CPU 8-bit weights with a scale for each row, 8-bit activations with one for each token or a fixed one; on
    a GPU 8-bit weights in blocks under fp16 activations."""
