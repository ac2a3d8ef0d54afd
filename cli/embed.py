"""`qwen3-triton embed`: lines of text in, vectors out."""

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
    """Which of the model's prompts goes around a text."""

    QUERY = "query"
    DOCUMENT = "document"


def embed(
    model: Annotated[str, typer.Option(help="Name of the model on the server.")],
    url: Annotated[str, typer.Option(help="HOST:PORT of Triton's gRPC port.")] = "localhost:8001",
    kind: Annotated[Kind, typer.Option(help="What the texts are.")] = Kind.DOCUMENT,
    instruction: Annotated[
        str | None, typer.Option(help="Task description for queries; the model's default if not given.")
    ] = None,
    dim: Annotated[int | None, typer.Option(help="Number of leading components; all if not given.")] = None,
    source: Annotated[str, typer.Option("--input", help=TEXTS_HELP)] = STANDARD_STREAM,
    output: Annotated[
        str,
        typer.Option(help="File to write: .npy as float32 [texts, dim], else JSON lines. - is standard output."),
    ] = STANDARD_STREAM,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The model's tokenizer.json; located through the model if not given.")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Model repository on this machine that has the model and its tokenizer.")
    ] = None,
) -> None:
    """Embed texts with a served model; one vector per line, in the order of the texts."""
    from qwen3_triton.client import EmbeddingClient

    if instruction is not None and kind is Kind.DOCUMENT:
        raise InvalidInputError("--instruction is for --kind query, documents take none")
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
    """Write `vectors` to `file`, which keeps its old content if writing fails.

    `.npy` is written as float32 `[texts, dim]`, any other name as JSON lines. Raises InvalidInputError if that fails.
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
    """Each row as a JSON array, its numbers in the fewest digits that read back to the same float32."""
    for row in vectors:
        yield "[" + ", ".join(map(str, row)) + "]"
