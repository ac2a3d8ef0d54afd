"""`qwen3-triton rerank`: rank lines of text by their relevance to a query."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .texts import JSON_LINES_HELP, STANDARD_STREAM, TEXTS_HELP, read_texts


def rerank(
    model: Annotated[str, typer.Option(help="Name of the model on the server.")],
    query: Annotated[str, typer.Option(help="The query.")],
    url: Annotated[str, typer.Option(help="HOST:PORT of Triton's gRPC port.")] = "localhost:8001",
    instruction: Annotated[str | None, typer.Option(help="Task description; the model's default if not given.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Number of documents to print; all if not given.")] = None,
    source: Annotated[str, typer.Option("--input", help=TEXTS_HELP)] = STANDARD_STREAM,
    json_lines: Annotated[bool, typer.Option("--json-lines", help=JSON_LINES_HELP)] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that ranking all texts may take; no limit if not given.")
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
    """Rank documents for a query. Prints JSON objects, best first; "position" counts input lines from 0."""
    from qwen3_triton.client import RerankClient

    texts = read_texts(source, json_lines=json_lines)
    with (
        RerankClient(
            url, model, tokenizer=tokenizer, repository=repository, timeout_s=request_timeout, call_timeout_s=timeout
        ) as client,
        warnings.catch_warnings(record=True) as caught,
    ):
        ranked = client.rerank(query, texts, instruction, top_k)
    for warning in caught:
        typer.echo(f"note: {warning.message}", err=True)
    for position, score in ranked:
        typer.echo(_json_line(position, score, texts[position]))


def _json_line(position: int, score: float, text: str) -> str:
    # nine digits round-trip to the same float32
    fields = {"position": position, "score": float(f"{score:.9g}"), "text": text}
    return json.dumps(fields, ensure_ascii=False)
