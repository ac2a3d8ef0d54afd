"""What the arguments of sentence-transformers' `encode_query` and `encode_document` mean for this client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidInputError
from .manifest import EmbeddingManifest, fill_template
from .quantization import quantize_embeddings
from .vector_blocks import check_float_rows
from .vector_formats import EmbeddingDtype, make_format
from .vectors import check_dimension, normalize_rows

TextKind = Literal["query", "document"]
"""Which prompt a text gets."""

_TEXT = "{text}"
_INSTRUCTION = "{instruction}"
_NUMPY = "results are numpy arrays, which torch.from_numpy converts"
_MEANINGLESS: Mapping[str, tuple[tuple[object, ...], str]] = {
    "show_progress_bar": ((None, False), "the client shows no progress"),
    "output_value": (("sentence_embedding",), "the server returns the embeddings of texts only"),
    "convert_to_numpy": ((True,), _NUMPY),
    "convert_to_tensor": ((False,), _NUMPY),
    "device": ((None,), "the server has the model"),
    "pool": ((None,), "give the client a list of servers to compute on several"),
    "chunk_size": ((None,), "the client chooses the size of its requests"),
}
"""Arguments that cannot be obeyed: their values that change nothing, and the reason."""
_WITHOUT_INFLUENCE = "batch_size"
"""Accepted, as the size of requests follows the server's speed and does not change a result."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodeArguments:
    """Arguments of a call, documented at `SentenceMethods.encode_query`."""

    kind: TextKind
    prompt: str | None
    truncate_dim: int | None
    precision: EmbeddingDtype
    normalize_embeddings: bool
    ranges: NDArray[Any] | None
    others: Mapping[str, object]
    instruction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoding:
    """The arguments for this client's own methods, and what becomes of their vectors."""

    texts: Sequence[str]
    is_single: bool
    """Whether the caller gave one text, and not a list."""
    instruction: str | None
    dim: int
    is_cut_later: bool
    """Whether a vector is cut without becoming a unit vector again, which this client's own methods do not offer."""
    precision: EmbeddingDtype
    ranges: NDArray[Any] | None

    @classmethod
    def create(cls, inputs: str | Sequence[str], given: EncodeArguments, manifest: EmbeddingManifest) -> Self:
        """Check the arguments of a call; raise InvalidInputError if one is invalid or has no meaning here."""
        _check_others(given.others, given.kind)
        dim = check_dimension(manifest, given.truncate_dim)
        make_format(given.precision, dim, given.ranges)
        return cls(
            texts=[inputs] if isinstance(inputs, str) else inputs,
            is_single=isinstance(inputs, str),
            instruction=_find_instruction(given, manifest),
            dim=dim,
            is_cut_later=dim < manifest.dimension and not given.normalize_embeddings,
            precision=given.precision,
            ranges=given.ranges,
        )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `embed_queries` and `embed_documents`."""
        return {} if self.is_cut_later else {"dim": self.dim, "dtype": self.precision, "ranges": self.ranges}

    def finish(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Return the caller's result, `[n, width]`, or `[width]` for a single text."""
        if self.is_cut_later:
            cut = np.ascontiguousarray(vectors[:, : self.dim])
            vectors = quantize_embeddings(cut, self.precision, ranges=self.ranges)
        return vectors[0] if self.is_single else vectors


def unit_rows(embeddings: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return float32 `[n, dim]` unit vectors of floats `[n, dim]` or `[dim]`.

    Raises:
        InvalidInputError: `embeddings`, the caller's argument `name`, have another shape or type.
    """
    rows = check_float_rows(np.atleast_2d(np.asarray(embeddings)), name)
    return normalize_rows(rows.astype(np.float32, copy=False))


def _check_others(others: Mapping[str, object], kind: TextKind) -> None:
    allowed = {**_MEANINGLESS, "prompt_name": ((None, kind), f"the method is for the prompt of a {kind}")}
    for name, value in others.items():
        if name == _WITHOUT_INFLUENCE:
            continue
        if name not in allowed:
            raise InvalidInputError(f"{name} is not an argument of encode_{kind}: remove it")
        values, reason = allowed[name]
        if value not in values:
            raise InvalidInputError(f"{name} is {value!r}, which has no meaning here: {reason}")


def _find_instruction(given: EncodeArguments, manifest: EmbeddingManifest) -> str | None:
    """Return the instruction with which the model's template has the prompt that the caller gave; None if neither."""
    if given.prompt is None:
        return given.instruction
    if given.instruction is not None:
        raise InvalidInputError("prompt and instruction are both given: give one of them")
    template = manifest.prompts.query if given.kind == "query" else manifest.prompts.document
    before, placeholder, after = template.removesuffix(_TEXT).partition(_INSTRUCTION)
    found = given.prompt.removeprefix(before).removesuffix(after) if placeholder else None
    values = {} if found is None else {"instruction": found}
    if fill_template(template, text="", **values) != given.prompt or not template.endswith(_TEXT):
        raise InvalidInputError(
            f"prompt is {given.prompt!r}, but the model's prompt has the form {template!r}: give a prompt of this form"
        )
    if given.kind == "document" and found not in (None, manifest.prompts.default_instruction):
        raise InvalidInputError("prompt has an instruction, but documents have the model's: omit prompt")
    return found
