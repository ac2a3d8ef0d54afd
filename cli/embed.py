"""`qwen3-triton embed`: lines of text to vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from qwen3_triton.client.errors import InvalidInputError

from .texts import STANDARD_STREAM, TEXTS_HELP, read_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Kind(StrEnum):
    """Kind of text, which selects the model's prompt."""

    QUERY = "query"
    DOCUMENT = "document"


def embed(
    model: Annotated[str, typer.Option(help="Name of the model on the server.")],
    url: Annotated[str, typer.Option(help="HOST:PORT of Triton's gRPC port.")] = "localhost:8001",
    kind: Annotated[Kind, typer.Option(help="Kind of the texts, which selects the prompt.")] = Kind.DOCUMENT,
    instruction: Annotated[
        str | None, typer.Option(help="Task description for queries; the model's default if not given.")
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(help="Number of leading components to keep; the vectors are renormalized. All if not given."),
    ] = None,
    source: Annotated[str, typer.Option("--input", help=TEXTS_HELP)] = STANDARD_STREAM,
    output: Annotated[
        str,
        typer.Option(
            help="Output file: .npy for a float32 array, one row per text; otherwise JSON lines. - for standard output."
        ),
    ] = STANDARD_STREAM,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="The model's tokenizer.json. Default: from --repository, or else from its origin in the manifest."
        ),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Local model repository to read the model's tokenizer from.")
    ] = None,
) -> None:
    """Embed texts with a served model. Writes one vector per text, in the order of the texts."""
    from qwen3_triton.client import EmbeddingClient

    if instruction is not None and kind is Kind.DOCUMENT:
        raise InvalidInputError("--instruction applies to queries only: add --kind query or remove it")
    texts = read_texts(source)
    with EmbeddingClient(url, model, tokenizer=tokenizer, repository=repository) as client:
        vectors = (
            client.embed_queries(texts, instruction, dim) if kind is Kind.QUERY else client.embed_documents(texts, dim)
        )
    if output == STANDARD_STREAM:
        for line in _json_lines(vectors):
            typer.echo(line)
    else:
        write_vectors(Path(output), vectors)


def write_vectors(file: Path, vectors: NDArray[np.float32]) -> None:
    """Write `vectors` atomically: as float32 `[texts, dim]` if the name ends with `.npy`, otherwise as JSON lines.

    Raises:
        InvalidInputError: The file cannot be written; an existing file is unchanged.
    """
    import numpy as np

    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            if file.suffix == ".npy":
                np.save(stream, vectors)
            else:
                _write_lines(stream, _json_lines(vectors))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as exc:
        raise InvalidInputError(f"--output: cannot write {file}: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)


def _write_lines(stream: BinaryIO, lines: Iterable[str]) -> None:
    for line in lines:
        stream.write(line.encode() + b"\n")


def _json_lines(vectors: NDArray[np.float32]) -> Iterator[str]:
    """Yield each row as a JSON array, with the shortest numbers that round-trip to the same float32."""
    for row in vectors:
        yield "[" + ", ".join(map(str, row)) + "]"
