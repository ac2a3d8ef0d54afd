"""Training of the demo checkpoint, its adapter and the reranker with the Python source code on this machine.

`python -m examples.demo.train` runs all stages; `--stages` runs some of them, with the existing files of the others.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import logging
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict

import torch
from peft import LoraConfig, get_peft_model

from examples.demo.bag import initialize_as_bag_of_words, train_token_embeddings
from examples.demo.batches import MAX_DOCUMENT_TOKENS, MAX_QUERY_TOKENS, tokenize_pairs
from examples.demo.checkpoint import ADAPTER, CHECKPOINT, LOG, load_embedder, write_adapter, write_checkpoint
from examples.demo.evaluation import EvaluationSet, FloatArray, cut, load_evaluation_set, ndcg_at_10
from examples.demo.lexical import evaluate_bm25
from examples.demo.loop import Schedule, train
from examples.demo.loss import MATRYOSHKA_DIMS
from examples.demo.model import VOCABULARY_ROWS, Embedder, new_model
from examples.demo.pairs import Pair, held_out_functions, pairs_of, reverse, training_functions
from examples.demo.reranking.train import measure_reranker, train_demo_reranker
from examples.demo.tasks import ADAPTER_TASK, BASE_TASK, DemoTask
from examples.demo.tokenizer import end_token_id, train_tokenizer

SEED = 20240607
BAG_SCHEDULE = Schedule(steps=700, batch_pairs=192, peak_learning_rate=3e-2, warmup_steps=20, weight_decay=0.0)
BASE_SCHEDULE = Schedule(steps=640, batch_pairs=96, peak_learning_rate=1e-3, warmup_steps=20)
ADAPTER_SCHEDULE = Schedule(steps=160, batch_pairs=64, peak_learning_rate=2e-3, warmup_steps=6, weight_decay=0.0)
ADAPTER_RANK = 16
_SNAPSHOT_EVERY = 100
_VERSIONED = ("torch", "transformers", "tokenizers", "peft", "numpy")
_LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_log = logging.getLogger(__name__)


def train_base() -> None:
    """Train tokenizer and model, write the checkpoint, and record the settings and losses."""
    pairs = _training_pairs()
    tokenizer = train_tokenizer((text for pair in pairs for text in (pair.query, pair.document)), VOCABULARY_ROWS)
    rows = tokenize_pairs(pairs, tokenizer, query_tokens=MAX_QUERY_TOKENS, document_tokens=MAX_DOCUMENT_TOKENS)
    model = new_model(SEED)
    embeddings = train_token_embeddings(rows, VOCABULARY_ROWS, model.config.hidden_size, BAG_SCHEDULE, SEED)
    initialize_as_bag_of_words(model, embeddings)
    _log.info("token embeddings trained")

    def snapshot(step: int) -> None:
        if step % _SNAPSHOT_EVERY == 0:
            write_checkpoint(model, tokenizer, CHECKPOINT)

    pad_id = end_token_id(tokenizer)
    losses = train(model, rows, BASE_SCHEDULE, pad_id=pad_id, seed=SEED, on_step=snapshot)
    write_checkpoint(model, tokenizer, CHECKPOINT)
    _record(
        seed=SEED,
        python=platform.python_version(),
        versions={name: importlib.metadata.version(name) for name in _VERSIONED},
        data=_count_data(pairs),
        bag={"schedule": asdict(BAG_SCHEDULE)},
        base={"schedule": asdict(BASE_SCHEDULE), "losses": [asdict(loss) for loss in losses]},
    )


def train_adapter() -> None:
    """Train a LoRA adapter for the written checkpoint, and write it."""
    pairs = reverse(_training_pairs())
    base = load_embedder()
    # queries are code with an instruction here, documents are descriptions
    rows = tokenize_pairs(
        pairs, base.tokenizer, query_tokens=MAX_DOCUMENT_TOKENS + 24, document_tokens=MAX_QUERY_TOKENS
    )
    torch.manual_seed(SEED)
    lora = LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=ADAPTER_RANK,
        lora_alpha=2 * ADAPTER_RANK,
        lora_dropout=0.0,
        target_modules=_LINEAR_LAYERS,
    )
    model = get_peft_model(base.model, lora)
    pad_id = end_token_id(base.tokenizer)
    losses = train(model, rows, ADAPTER_SCHEDULE, pad_id=pad_id, seed=SEED)
    write_adapter(model, ADAPTER)
    _record(
        adapter={
            "pairs": len(pairs),
            "rank": ADAPTER_RANK,
            "schedule": asdict(ADAPTER_SCHEDULE),
            "losses": [asdict(loss) for loss in losses],
        }
    )


def measure() -> None:
    """Evaluate the written files, and record nDCG@10 per task, model and dimension."""
    figures: dict[str, object] = {}
    base, adapted = load_embedder(), load_embedder(adapter=ADAPTER)
    for task in (BASE_TASK, ADAPTER_TASK):
        evaluation_set = load_evaluation_set(task)
        figures[task.name] = {
            "instruction": task.value,
            "queries": len(evaluation_set.queries),
            "documents": len(evaluation_set.documents),
            "bm25": round(evaluate_bm25(evaluation_set), 4),
            "base": _measure_dims(base, evaluation_set),
            "adapter": _measure_dims(adapted, evaluation_set),
        }
        _log.info("%s: %s", task.name, figures[task.name])
    _record(ndcg_at_10=figures, retrieve_then_rerank=measure_reranker())


def _measure_dims(embedder: Embedder, evaluation_set: EvaluationSet) -> dict[str, float]:
    queries = embedder.embed_queries(evaluation_set.queries, evaluation_set.task)
    documents = embedder.embed_documents(evaluation_set.documents)
    return {str(dim): _ndcg(queries, documents, evaluation_set, dim) for dim in MATRYOSHKA_DIMS}


def _ndcg(queries: FloatArray, documents: FloatArray, evaluation_set: EvaluationSet, dim: int) -> float:
    return round(ndcg_at_10(cut(queries, dim), cut(documents, dim), evaluation_set.relevance), 4)


@functools.cache
def _training_pairs() -> list[Pair]:
    pairs = pairs_of(training_functions())
    _log.info("%d training pairs", len(pairs))
    return pairs


def _count_data(pairs: list[Pair]) -> dict[str, object]:
    held_out = held_out_functions()
    return {
        "training_pairs": {task.name: sum(pair.task is task for pair in pairs) for task in DemoTask},
        "training_modules": len({pair.module for pair in pairs}),
        "largest_packages": dict(Counter(pair.module.split(".")[0] for pair in pairs).most_common(10)),
        "held_out_modules": len({function.module for function in held_out}),
        "held_out_described_functions": sum(bool(function.description) for function in held_out),
    }


def _record(**entries: object) -> None:
    """Add entries to the training log."""
    logged = json.loads(LOG.read_text(encoding="utf-8")) if LOG.exists() else {}
    LOG.write_text(json.dumps(logged | entries, indent=1) + "\n", encoding="utf-8")


def train_reranker() -> None:
    """Train the reranker, with hard negatives from the written checkpoint, and write it."""
    _record(reranker=train_demo_reranker(_training_pairs(), SEED))


STAGES: dict[str, Callable[[], None]] = {
    "base": train_base,
    "adapter": train_adapter,
    "reranker": train_reranker,
    "figures": measure,
}


def main() -> None:
    """Run the stages given on the command line, in their order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    for name, run in STAGES.items():
        if name in options.stages:
            run()


if __name__ == "__main__":
    main()
