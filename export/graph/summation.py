"""The order of sums in ONNX Runtime's products of floats on a CPU, on which the bits of results depend.

The runtime sums a product of two activations, or with a batch of weights, in blocks of BLOCK inputs. Threads divide its
rows or its outputs, whichever are more; if a thread has 64 or fewer outputs, its blocks are larger. Bits depend on the
numbers of rows and threads, unless all inputs fit one block or the outputs are few and never divided. Products with a
matrix of weights are packed when the model is loaded, in blocks that do not change.
"""

from __future__ import annotations

from ..architectures import DecoderConfig

BLOCK = 128


def block_width(inputs: int) -> int:
    """Return the largest divisor of `inputs` that fits one block."""
    return max(width for width in range(1, BLOCK + 1) if inputs % width == 0)


def longest_prefix(config: DecoderConfig) -> int:
    """Return the most tokens of a stored prefix with which results do not depend on the batch.

    With few own tokens, a key head has fewer queries than a head has outputs, and threads divide the outputs. Then all
    keys and values must fit one block.
    """
    few = -(-config.head_dim * config.kv_heads // config.heads)
    return max(BLOCK - few, 0)
