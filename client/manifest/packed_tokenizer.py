"""A `tokenizer.json` as text for the `parameters` of `config.pbtxt`, where clients of any machine can read it.

A client with gRPC's default limit of 4 MiB for a reply can still read the configuration.
"""

from __future__ import annotations

import base64
import lzma

from ..errors import ManifestError
from .input_files import MAX_BYTES

TOKENIZER_PARAMETER = "tokenizer.json.xz"
"""Key in the `parameters` of `config.pbtxt`: the file, compressed in the xz format, in base64. Absent if too large."""

LARGEST_PACKED = 3 << 20
"""Most characters of a packed tokenizer."""

_PRESET = 1
"""Fast: xz's default makes it smaller, but takes many times as long."""


def pack_tokenizer(content: bytes) -> str | None:
    """Return the packed form of a `tokenizer.json`; None if it is too large for `config.pbtxt`."""
    packed = base64.b64encode(lzma.compress(content, preset=_PRESET)).decode("ascii")
    return packed if len(packed) <= LARGEST_PACKED else None


def unpack_tokenizer(packed: str) -> bytes:
    """Return the content of the `tokenizer.json`.

    Raises:
        ManifestError: `packed` is malformed, or the file would be unreasonably large.
    """
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_BYTES)
    try:
        content = decompressor.decompress(base64.b64decode(packed, validate=True), MAX_BYTES)
    except (ValueError, lzma.LZMAError) as exc:
        raise ManifestError(f"the served tokenizer is malformed ({exc}); export the model again") from exc
    if not decompressor.eof:
        raise ManifestError(
            f"the served tokenizer is incomplete or has more than {MAX_BYTES >> 20} MiB; export the model again"
        )
    return content
