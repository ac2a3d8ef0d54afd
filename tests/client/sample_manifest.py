"""Sample manifests, and their tokenizer: one token per byte, no merges, an end token appended."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from qwen3_triton.client import (
    EmbeddingManifest,
    ExportRecord,
    LayerErrors,
    PairPrompts,
    ParityReport,
    Precision,
    Prompts,
    QuantizationReport,
    RerankManifest,
    RetrievalReport,
    ScoreParityReport,
    SourceIdentity,
    TokenizerIdentity,
)

END_TOKEN = "<|endoftext|>"
END_TOKEN_ID = 256
VOCABULARY_SIZE = 258
DIMENSION = 16


def write_tokenizer(file: Path) -> None:
    """Write a tokenizer.json with padding and truncation enabled, which the client must disable."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_TOKEN, special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_TOKEN}", special_tokens=[(END_TOKEN, END_TOKEN_ID)]
    )
    tokenizer.enable_padding(pad_id=END_TOKEN_ID, pad_token=END_TOKEN)
    tokenizer.enable_truncation(max_length=5)
    tokenizer.save(str(file))


def make_manifest(tokenizer_file: Path, **changes: Any) -> EmbeddingManifest:
    """Return a manifest for `tokenizer_file`, with `changes` to its fields."""
    manifest = EmbeddingManifest(
        dimension=DIMENSION,
        min_dimension=4,
        max_tokens=200,
        vocabulary_size=VOCABULARY_SIZE,
        end_token_id=END_TOKEN_ID,
        prompts=Prompts(
            query="Instruct: {instruction}\nQuery:{text}", document="{text}", default_instruction="find it"
        ),
        tokenizer=TokenizerIdentity(
            sha256=hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(), origin=str(tokenizer_file.parent)
        ),
        precision=Precision.FP32,
    )
    return dataclasses.replace(manifest, **changes)


def make_rerank_manifest(tokenizer_file: Path, **changes: Any) -> RerankManifest:
    """Return a reranker's manifest for `tokenizer_file`, with `changes` to its fields."""
    embedding = make_manifest(tokenizer_file)
    manifest = RerankManifest(
        dimension=1,
        max_tokens=200,
        vocabulary_size=VOCABULARY_SIZE,
        prompts=PairPrompts(
            prefix="<|im_end|>judge\n",
            body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
            suffix="<|im_end|>answer\n",
            default_instruction="find it",
        ),
        tokenizer=embedding.tokenizer,
        precision=Precision.FP32,
    )
    return dataclasses.replace(manifest, **changes)


def make_record(manifest: EmbeddingManifest | RerankManifest, **changes: Any) -> ExportRecord:
    """Return an export record with `manifest`, with `changes` to its fields."""
    parity: ParityReport | ScoreParityReport
    if isinstance(manifest, EmbeddingManifest):
        parity = ParityReport(
            reference="transformers 5.0",
            runtime="1.23",
            texts=3,
            longest_tokens=9,
            min_cosine=0.9999999,
            mean_cosine=1.0,
            max_abs_error=1e-6,
            min_batched_cosine=1.0,
            batched_bit_identical=True,
            cosine_tolerance=1e-6,
            batched_cosine_tolerance=1e-5,
        )
    else:
        parity = ScoreParityReport(
            reference="transformers 5.0",
            runtime="1.23",
            pairs=3,
            longest_tokens=9,
            min_score=0.1,
            max_score=0.9,
            max_score_error=1e-7,
            mean_score_error=1e-8,
            max_batched_score_error=0.0,
            batched_bit_identical=True,
            score_tolerance=1e-4,
            batched_score_tolerance=1e-3,
        )
    record = ExportRecord(
        manifest=manifest,
        checkpoint=SourceIdentity(reference="acme/tiny@main", sha256="0" * 64),
        adapters=(SourceIdentity(reference="adapters/a", sha256="1" * 64, weight=0.5),),
        parity=parity,
    )
    return dataclasses.replace(record, **changes)


def make_quantization(parity: ParityReport | ScoreParityReport | None) -> QuantizationReport:
    """Return a report with `parity` as its held-out comparison."""
    return QuantizationReport(
        calibration=SourceIdentity(reference="built-in", sha256="2" * 64),
        calibration_texts=52,
        held_out=parity,
        table_error=0.007,
        layer_errors=(
            LayerErrors(qkv=0.004, output=0.003, gate_up=0.007, down=0.01),
            LayerErrors(qkv=0.003, output=0.002, gate_up=0.006, down=0.009),
        ),
        fp32_layers=("layers.0.mlp.down",),
        fp32_share=0.125,
        bytes=1000,
        fp32_bytes=3900,
    )


def make_retrieval() -> RetrievalReport:
    """Return a report that has a tolerance."""
    return RetrievalReport(
        evaluation=SourceIdentity(reference="sets/mine", sha256="3" * 64),
        reference="transformers 5.0",
        runtime="1.23",
        queries=400,
        documents=1423,
        reference_ndcg_at_10=0.4318,
        ndcg_at_10=0.4293,
        ndcg_loss_tolerance=0.005,
    )
