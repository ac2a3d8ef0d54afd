"""Training and evaluation of the demo reranker."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from tokenizers import Tokenizer

from examples.demo.batches import TokenPair
from examples.demo.checkpoint import RERANKER, load_embedder, write_reranker
from examples.demo.evaluation import load_evaluation_set
from examples.demo.lexical import bm25_scores
from examples.demo.loop import Schedule
from examples.demo.pairs import Pair
from examples.demo.reranking.bag import train_bag
from examples.demo.reranking.evaluation import CANDIDATES, best_candidates, evaluate_reranking
from examples.demo.reranking.lists import NEGATIVES, TRAINING_BODY_TOKENS, mine_lists
from examples.demo.reranking.loop import train_reranker
from examples.demo.reranking.model import load_reranker, new_reranker
from examples.demo.reranking.start import BAG_SIZE, initialize_as_matcher
from examples.demo.reranking.tokens import PairRows, reranker_tokenizer
from examples.demo.reranking.words import find_token_words
from examples.demo.tasks import BASE_TASK

LISTS = 3000
BAG_SCHEDULE = Schedule(
    steps=700, batch_pairs=192, peak_learning_rate=1e-2, warmup_steps=20, temperature=0.1, weight_decay=0.0
)
RERANKER_SCHEDULE = Schedule(steps=200, batch_pairs=12, peak_learning_rate=1.5e-4, warmup_steps=20)
_MAX_BAG_TOKENS = 160
_log = logging.getLogger(__name__)


def train_demo_reranker(pairs: Sequence[Pair], seed: int) -> dict[str, object]:
    """Train and write the reranker; return its entry in the training log.

    The lists come from pairs that the bag of words was not trained on, so that its matches are not overfitted there.
    """
    described = [pair for pair in pairs if pair.task is BASE_TASK]
    random.Random(seed).shuffle(described)
    list_queries = {pair.query for pair in described[:LISTS]}
    embedder = load_embedder()
    tokenizer = reranker_tokenizer(embedder.tokenizer)
    words = find_token_words(tokenizer)
    bag_pairs = _tokens([pair for pair in pairs if pair.query not in list_queries], tokenizer)
    bag = train_bag(bag_pairs, words, BAG_SIZE, BAG_SCHEDULE, seed)
    _log.info("bag of words trained on %d pairs", len(bag_pairs))
    lists = mine_lists(described[:LISTS], embedder)
    _log.info("found hard negatives for %d queries", len(lists))
    rows = PairRows(tokenizer)
    model = new_reranker(seed)
    initialize_as_matcher(model, bag, words, rows)
    write_reranker(model, tokenizer, RERANKER)
    start = measure_reranker()
    losses = train_reranker(model, rows, lists, RERANKER_SCHEDULE, seed=seed)
    write_reranker(model, tokenizer, RERANKER)
    return {
        "bag": {"pairs": len(bag_pairs), "size": BAG_SIZE, "schedule": asdict(BAG_SCHEDULE)},
        "lists": len(lists),
        "negatives_of_a_list": NEGATIVES,
        "body_tokens": TRAINING_BODY_TOKENS,
        "schedule": asdict(RERANKER_SCHEDULE),
        "losses": [asdict(loss) for loss in losses],
        "start": start,
    }


def measure_reranker() -> dict[str, object]:
    """Return nDCG@10 of the written files in float32: retrieval, after reranking, and after reranking by BM25."""
    evaluation_set = load_evaluation_set(BASE_TASK)
    embedder = load_embedder()
    similarities = embedder.embed_queries(evaluation_set.queries, BASE_TASK)
    similarities = similarities @ embedder.embed_documents(evaluation_set.documents).T
    reranker = load_reranker(RERANKER)
    queries, documents, relevance = evaluation_set.queries, evaluation_set.documents, evaluation_set.relevance
    quality = evaluate_reranking(queries, documents, relevance, similarities, reranker.score)
    lexical = np.take_along_axis(bm25_scores(queries, documents), best_candidates(similarities), 1)
    by_bm25 = evaluate_reranking(queries, documents, relevance, similarities, lambda _pairs: lexical.ravel())
    figures: dict[str, object] = {
        "instruction": evaluation_set.instruction,
        "queries": len(queries),
        "documents": len(documents),
        "candidates": CANDIDATES,
        "retrieval": round(quality.retrieval, 4),
        "reranked": round(quality.reranked, 4),
        "reranked_by_bm25": round(by_bm25.reranked, 4),
        "best_possible": round(quality.best_possible, 4),
    }
    _log.info("retrieval and reranking: %s", figures)
    return figures


def _tokens(pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[TokenPair]:
    """Tokenize the pairs without instruction and end token; pairs with an empty text are skipped."""
    queries = tokenizer.encode_batch([pair.query for pair in pairs])
    documents = tokenizer.encode_batch([pair.document for pair in pairs])
    return [
        TokenPair(
            task=pair.task,
            module=pair.module,
            query=query.ids[:_MAX_BAG_TOKENS],
            document=document.ids[:_MAX_BAG_TOKENS],
        )
        for pair, query, document in zip(pairs, queries, documents, strict=True)
        if query.ids and document.ids
    ]
