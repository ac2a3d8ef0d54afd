"""`qwen3-triton embed`: lines of text to vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen3_triton.client.errors import InvalidInputError

from .progress import open_progress
from .texts import JSON_LINES_HELP, STANDARD_STREAM, TEXTS_HELP, read_texts
from .vector_formats import check_format, choose_format
from .vector_output import PartialFile, StandardOutput, VectorOutput

if TYPE_CHECKING:
    from qwen3_triton.client import EmbeddingClient

_WRITES = 64
"""Number of times that the output grows, unless windows would be too small or too large."""
_SMALLEST_WINDOW, _LARGEST_WINDOW = 16, 1_024


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
    json_lines: Annotated[bool, typer.Option("--json-lines", help=JSON_LINES_HELP)] = False,
    output: Annotated[
        str,
        typer.Option(
            help="Output file: .npy for a float32 array, one row per text; .jsonl or .ndjson for JSON lines. "
            "- for JSON lines on standard output."
        ),
    ] = STANDARD_STREAM,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the output file of an earlier run that failed or was stopped.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that computing all texts may take; no limit if not given.")
    ] = None,
    request_timeout: Annotated[
        float, typer.Option(help="Seconds that one request may take, including its time in the server's queue.")
    ] = 60.0,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="The model's tokenizer.json. Default: from --repository, or else from the server."),
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Local model repository to read the model's tokenizer from.")
    ] = None,
) -> None:
    """Embed texts with a served model. Writes one vector per text as it is computed, in the order of the texts."""
    from qwen3_triton.client import EmbeddingClient

    if instruction is not None and kind is Kind.DOCUMENT:
        raise InvalidInputError("--instruction applies to queries only: add --kind query or remove it")
    if output == STANDARD_STREAM and resume:
        raise InvalidInputError("--resume needs a file: add --output FILE")
    if output != STANDARD_STREAM:
        check_format(Path(output))
    texts = read_texts(source, json_lines=json_lines)
    with EmbeddingClient(
        url, model, tokenizer=tokenizer, repository=repository, timeout_s=request_timeout, call_timeout_s=timeout
    ) as client:
        target: VectorOutput = StandardOutput()
        if output != STANDARD_STREAM:
            width = client.manifest.dimension if dim is None else dim
            identity = {
                "model": model,
                "manifest": hashlib.sha256(client.manifest.to_json().encode()).hexdigest(),
                "kind": kind,
                "instruction": instruction,
                "dim": width,
                "input": _hash_texts(texts),
            }
            target = PartialFile(
                Path(output),
                len(texts),
                choose_format(Path(output), len(texts), width),
                identity,
                resume=resume,
            )
        try:
            _embed_rest(client, texts, kind, instruction, dim, target)
        except BaseException:
            left = target.abandon()
            if left is not None:
                typer.echo(f"note: {left}", err=True)
            raise


def _embed_rest(
    client: EmbeddingClient,
    texts: Sequence[str],
    kind: Kind,
    instruction: str | None,
    dim: int | None,
    target: VectorOutput,
) -> None:
    """Embed the texts that `target` does not have yet."""
    rest = texts[target.done :]
    window = min(_LARGEST_WINDOW, max(_SMALLEST_WINDOW, len(rest) // _WRITES))
    arrays = (
        client.iter_queries(rest, instruction, dim, window_texts=window)
        if kind is Kind.QUERY
        else client.iter_documents(rest, dim, window_texts=window)
    )
    with open_progress(quiet=True) as progress:
        progress.stage("embedding")
        for vectors in arrays:
            target.append(vectors)
            progress.step(target.done, len(texts), client.tokens_computed)
    target.finish()


def _hash_texts(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text).encode() + b"\n")
    return digest.hexdigest()
