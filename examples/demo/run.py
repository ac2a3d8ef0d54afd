"""End-to-end demo: export the demo checkpoints, serve them with Triton, embed, rank, rerank and evaluate.

`python -m examples.demo.run`
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.demo.evaluation import EvaluationSet, FloatArray, evaluate, load_evaluation_set
from examples.demo.reranking.evaluation import CANDIDATES, evaluate_reranking
from examples.demo.retrieval_set import write_retrieval_set
from examples.demo.showcase import DOCUMENTS, QUESTIONS
from examples.demo.tasks import ADAPTER_TASK, BASE_TASK
from qwen3_triton.client import EmbeddingClient, RerankClient
from qwen3_triton.server import start_triton

CHECKPOINT = "examples/demo/checkpoint"
ADAPTER = "examples/demo/adapter"
RERANKER = "examples/demo/reranker"
REPOSITORY = Path("model_repository")
EVALUATION = Path("build/demo-evaluation")
MAX_NDCG_LOSS = 0.005
TOP = 3
RERANKED_QUERIES = 100
QUERY_BATCH_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class DemoModel:
    """One export of a demo checkpoint."""

    name: str
    adapter: bool
    precision: str
    checkpoint: str = CHECKPOINT
    evaluated: bool = False
    """Whether the export evaluates the model on the base task's evaluation set."""

    def command(self) -> list[str]:
        """Return the arguments of `qwen3-triton` that export the model."""
        adapter = ["--adapter", ADAPTER] if self.adapter else []
        evaluation = ["--evaluation", str(EVALUATION), "--max-ndcg-loss", str(MAX_NDCG_LOSS)]
        return [
            *("export", self.checkpoint, *adapter, "--precision", self.precision),
            *(evaluation if self.evaluated else []),
            *("--name", self.name, "--repository", str(REPOSITORY), "--overwrite"),
        ]


MODELS = (
    DemoModel("demo-base", False, "fp32"),
    DemoModel("demo", True, "fp32"),
    DemoModel("demo-fp16", True, "fp16"),
    DemoModel("demo-int8", True, "int8", evaluated=True),
)
RERANKING_MODEL = DemoModel("demo-reranker", False, "fp32", RERANKER)


def main() -> None:
    """Run the demo; exit with a non-zero status if a step fails."""
    console = Console(highlight=False, width=110 if not sys.stdout.isatty() else None)
    write_retrieval_set(load_evaluation_set(BASE_TASK), EVALUATION)
    for model in (*MODELS, RERANKING_MODEL):
        _export(console, model)
    console.rule("Serving the models with tritonserver")
    with start_triton(REPOSITORY, progress=console.print) as server:
        console.print(f"ready on {server.grpc_url} (gRPC), {server.http_url} (HTTP)")
        console.rule("Retrieval with demo-base: the closest code for each question")
        with _connect(server.grpc_url, "demo-base") as client:
            _show_ranking(console, client)
        console.rule("nDCG@10 on held-out modules of the standard library, through Triton")
        _show_quality(console, server.grpc_url)
        console.rule("Retrieve with demo-base, rerank with demo-reranker")
        _show_reranking(console, server.grpc_url)
    _show_next(console)


def _export(console: Console, model: DemoModel) -> None:
    command = model.command()
    console.print(f"\n$ qwen3-triton {' '.join(command)}", style="bold", markup=False, soft_wrap=True)
    program = Path(sys.executable).with_name("qwen3-triton")
    status = subprocess.run([str(program), *command], check=False).returncode
    if status:
        sys.exit(status)


def _connect(url: str, model: str) -> EmbeddingClient:
    return EmbeddingClient(url, model, repository=REPOSITORY, timeout_s=QUERY_BATCH_TIMEOUT_S)


def _show_ranking(console: Console, client: EmbeddingClient) -> None:
    """Print the best snippets for each question, by cosine."""
    queries = client.embed_queries(question.text for question in QUESTIONS)
    scores = queries @ client.embed_documents(DOCUMENTS).T
    for question, row in zip(QUESTIONS, scores, strict=True):
        console.print(f"\n{question.text}", style="bold", markup=False)
        for index in row.argsort()[::-1][:TOP]:
            first_line = DOCUMENTS[index].strip().splitlines()[0]
            console.print(f"  {row[index]:6.3f}  {first_line}", markup=False)


def _show_quality(console: Console, url: str) -> None:
    """Print nDCG@10 with one row per model and one column per task."""
    sets = [load_evaluation_set(task) for task in (BASE_TASK, ADAPTER_TASK)]
    table = Table()
    table.add_column("model")
    table.add_column("weights")
    for evaluation_set in sets:
        table.add_column(evaluation_set.task.name.lower().replace("_", " "), justify="right")
    for model in MODELS:
        with _connect(url, model.name) as client:
            figures = [f"{_measure(client, evaluation_set):.4f}" for evaluation_set in sets]
        weights = f"base + adapter, {model.precision}" if model.adapter else f"base, {model.precision}"
        table.add_row(model.name, weights, *figures)
    console.print(table)
    counts = " and ".join(f"{len(each.queries)} queries over {len(each.documents)} texts" for each in sets)
    console.print(f"({counts})")


def _measure(client: EmbeddingClient, evaluation_set: EvaluationSet) -> float:
    def embed_queries(texts: list[str]) -> FloatArray:
        return client.embed_queries(texts, instruction=evaluation_set.instruction)

    return evaluate(evaluation_set, embed_queries, client.embed_documents)


def _show_reranking(console: Console, url: str) -> None:
    """Print nDCG@10 of the retrieval, and after reranking its best documents."""
    evaluation_set = load_evaluation_set(BASE_TASK)
    queries = evaluation_set.queries[:RERANKED_QUERIES]
    with _connect(url, "demo-base") as client:
        similarities = client.embed_queries(queries, instruction=evaluation_set.instruction)
        similarities = similarities @ client.embed_documents(evaluation_set.documents).T

    with RerankClient(url, RERANKING_MODEL.name, repository=REPOSITORY, timeout_s=QUERY_BATCH_TIMEOUT_S) as reranker:

        def score(pairs: list[tuple[str, str]]) -> FloatArray:
            return reranker.score(pairs, instruction=evaluation_set.instruction)

        relevance = evaluation_set.relevance[:RERANKED_QUERIES]
        quality = evaluate_reranking(queries, evaluation_set.documents, relevance, similarities, score)
    table = Table()
    for heading in ("ranking", "nDCG@10"):
        table.add_column(heading, justify="right" if heading == "nDCG@10" else "left")
    table.add_row("demo-base", f"{quality.retrieval:.4f}")
    table.add_row(f"its top {CANDIDATES}, reranked by demo-reranker", f"{quality.reranked:.4f}")
    table.add_row(f"its top {CANDIDATES} in the best possible order", f"{quality.best_possible:.4f}")
    console.print(table)
    console.print(f"(the first {len(queries)} queries over {len(evaluation_set.documents)} texts, description to code)")


def _show_next(console: Console) -> None:
    console.rule("Your own checkpoint")
    console.print(
        "qwen3-triton export PATH_OR_HUB_ID --adapter PATH_TO_LORA --precision fp32 --name mymodel\n"
        "qwen3-triton serve\n"
        "echo 'how do I sort a list?' | qwen3-triton embed --model mymodel --kind query",
        markup=False,
    )


if __name__ == "__main__":
    main()
