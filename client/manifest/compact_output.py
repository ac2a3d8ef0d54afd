"""Additional outputs of an embedding model: smaller forms of the embedding, which the graph computes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .fields import known_fields, require_integers


class OutputType(StrEnum):
    """How the components of a compact output are stored."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UBINARY = "ubinary"
    """One bit of each component, 1 above zero; eight of them in a byte, the first one highest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactOutput:
    """The first components of the embedding, renormalized, in a type. Rows without a result are not NaN in every type:
    ROW_STATUS says which they are."""

    dim: int
    """Number of components."""
    dtype: OutputType

    @property
    def name(self) -> str:
        """Name of the output tensor `[rows, width]`."""
        return f"embedding_{self.dim}_{self.dtype}"

    @property
    def width(self) -> int:
        """Number of stored elements of a row."""
        return self.dim // 8 if self.dtype is OutputType.UBINARY else self.dim

    @classmethod
    def from_field(cls, value: object) -> tuple[CompactOutput, ...]:
        """Read the manifest's field `compact_outputs`, without the types that this code does not know.

        Raises:
            TypeError, ValueError: The field is malformed.
        """
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError(f"compact_outputs is {value!r}, expected a list")
        found = []
        for entry in value:
            fields = known_fields(cls, entry)
            require_integers(fields, "dim")
            if operator.index(fields["dim"]) < 1:
                raise ValueError(f"compact_outputs has dim {fields['dim']}")
            if fields["dtype"] in set(OutputType):
                found.append(cls(dim=fields["dim"], dtype=OutputType(fields["dtype"])))
        return tuple(found)
