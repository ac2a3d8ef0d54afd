"""The additional outputs that options ask for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..client.manifest import CompactOutput, OutputType
from .errors import ExportError

_SPELLING = re.compile(r"(?:(?P<dim>[0-9]{1,9}))?(?:(?:^|(?<=[0-9]):)(?P<dtype>[a-z]+[0-9]*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputChoice:
    """An additional output of an embedding model."""

    dim: int | None = None
    """Number of components; None for all."""
    dtype: OutputType = OutputType.FLOAT32
    """Type of the components."""

    @classmethod
    def parse(cls, text: str) -> OutputChoice:
        """Read `DIM:TYPE`, `DIM` or `TYPE`; raise ExportError if `text` is none of them."""
        matched = _SPELLING.fullmatch(text)
        dtype = matched["dtype"] if matched else None
        if not text or matched is None or dtype not in {None, *OutputType}:
            raise ExportError(
                f"compact output {text!r}: give DIM:TYPE, DIM or TYPE, with the type {', '.join(OutputType)}, such as "
                "256:float16"
            )
        return cls(
            dim=None if matched["dim"] is None else int(matched["dim"]),
            dtype=OutputType.FLOAT32 if dtype is None else OutputType(dtype),
        )


def choose_outputs(choices: Sequence[OutputChoice], dimension: int, smallest: int) -> tuple[CompactOutput, ...]:
    """Return the outputs of a model with `dimension` components, of which a client may keep `smallest` or more.

    Raises:
        ExportError: The model cannot have one of the outputs.
    """
    outputs = []
    for choice in choices:
        dim = dimension if choice.dim is None else choice.dim
        output = CompactOutput(dim=dim, dtype=choice.dtype)
        if not smallest <= dim <= dimension:
            raise ExportError(f"compact output {output.name}: the model offers {smallest} to {dimension} components")
        if choice.dtype is OutputType.UBINARY and dim % 8:
            raise ExportError(f"compact output {output.name}: the number of components must be a multiple of 8")
        if choice.dtype is OutputType.FLOAT32 and dim == dimension:
            raise ExportError(f"compact output {output.name}: this is what the output 'embedding' is; leave it out")
        if output in outputs:
            raise ExportError(f"compact output {output.name}: given twice")
        outputs.append(output)
    return tuple(outputs)
