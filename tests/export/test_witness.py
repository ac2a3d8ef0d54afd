"""sentence-transformers as an independent witness: the same folder and the same texts, read by its own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft_adapters import write_adapter
from safetensors.torch import load_file, save_file
from test_chat_template import TEMPLATES, write_reranker
from test_setting_files import PROMPTS_FILE, export
from tiny_checkpoint import TinyCheckpoint, write_checkpoint, write_json, write_tokenizer
from tokenizers import Tokenizer
from written_graph import Vectors, min_cosine

from qwen3_triton.client import EmbeddingManifest, RerankManifest
from qwen3_triton.client.manifest import fill_template
from qwen3_triton.export import ExportResult, FuseOptions, WeightedCheckpoint, write_fused_checkpoint
from qwen3_triton.export.verification.runtime import WrittenModel

sentence_transformers: Any = pytest.importorskip("sentence_transformers", minversion="5.4")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

TEXTS = ["the capital of the country", "", "{text} and {instruction}", "🙂 ein Zug", "the query and the document " * 12]


def write_sentence_files(folder: Path, *, transformer: str = "", **settings: Any) -> None:
    """Last-token pooling, normalization and prompts, as sentence-transformers saves them."""
    kinds = {"Transformer": transformer, "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 40, "pooling_mode_lasttoken": True})
    write_json(folder / PROMPTS_FILE, settings)


def served(result: ExportResult, kind: str) -> Vectors:
    """Embeddings of TEXTS as a client computes them from the manifest and the tokenizer file."""
    manifest = result.manifest
    assert isinstance(manifest, EmbeddingManifest)
    tokenizer = Tokenizer.from_file(str(result.folder.tokenizer))
    template, limit = getattr(manifest.prompts, kind), manifest.max_tokens
    rows = []
    for text in TEXTS:
        ids = tokenizer.encode(
            fill_template(template, text=text, instruction=manifest.prompts.default_instruction or "")
        ).ids
        if manifest.end_token_id is not None and len(ids) > limit:
            ids = [*ids[: limit - 1], manifest.end_token_id]
        rows.append(ids[:limit])
    return WrittenModel(result.folder.graph(1)).run(rows)


def assert_same(folder: Path, result: ExportResult) -> None:
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert min_cosine(served(result, "query"), model.encode_query(TEXTS)) >= 0.99999
    assert min_cosine(served(result, "document"), model.encode_document(TEXTS)) >= 0.99999


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "Instruct: Find it\nQuery:", "document": ""},
        {"query": "search_query: ", "document": "search_document: "},
        {"query": "", "document": ""},
        {"web": "Instruct: Find passages\nQuery: "},
        {},
    ],
    ids=["instruction", "both", "empty", "other names", "none"],
)
def test_prompts(tmp_path: Path, prompts: dict[str, str]) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_sentence_files(folder, prompts=prompts, default_prompt_name=None)
    assert_same(folder, export(folder, tmp_path / "repository", max_tokens=None))


@pytest.mark.parametrize("where", ["sentence_bert_config.json", "tokenizer_config.json"])
def test_length_limit(tmp_path: Path, where: str) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_sentence_files(folder, prompts={"query": "q: ", "document": ""})
    file = folder / where
    stated = json.loads(file.read_text()) if file.exists() else {}
    key = "max_seq_length" if where.startswith("sentence") else "model_max_length"
    write_json(file, stated | {key: 32})
    result = export(folder, tmp_path / "repository", max_tokens=None)
    assert result.manifest.max_tokens == 32
    assert_same(folder, result)


@pytest.mark.skipif(
    sentence_transformers.__version__.startswith("5."), reason="sentence-transformers 5 needs a config.json"
)
def test_adapter_folder(tmp_path: Path) -> None:
    """Base and adapter state different prompts and tokenizers; both libraries take the adapter's."""
    base = write_checkpoint(tmp_path / "base")
    write_sentence_files(base, prompts={"query": "Instruct: Find it\nQuery:", "document": ""})
    adapter = write_adapter(tmp_path / "adapter", base)
    write_sentence_files(adapter, prompts={"query": "search_query: ", "document": "search_document: "})
    write_tokenizer(adapter)
    assert_same(adapter, export(base, tmp_path / "repository", adapter, max_tokens=None))


def test_transformer_in_a_subfolder(tmp_path: Path) -> None:
    root = tmp_path / "model"
    write_checkpoint(root / "0_Transformer")
    write_sentence_files(root, transformer="0_Transformer", prompts={"query": "q: ", "document": "d: "})
    assert_same(root, export(root, tmp_path / "repository", max_tokens=None))


def test_text_without_a_direction(tmp_path: Path) -> None:
    """The end token of a new checkpoint has an embedding of zeros, and so has the document ''."""
    folder = write_checkpoint(tmp_path / "model")
    write_sentence_files(folder, prompts={"query": "q: ", "document": ""})
    tensors = load_file(folder / "model.safetensors")
    tensors["embed_tokens.weight"][278] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = export(folder, tmp_path / "repository", max_tokens=None)
    assert [bool(vector.any()) for vector in served(result, "document")] == [text != "" for text in TEXTS]
    assert_same(folder, result)


@pytest.mark.parametrize("transformer", ["", "0_Transformer"])
def test_fused_checkpoints(tmp_path: Path, transformer: str) -> None:
    for name, seed in {"first": 1, "second": 2}.items():
        write_checkpoint(tmp_path / name / transformer, TinyCheckpoint(seed=seed))
        write_sentence_files(tmp_path / name, transformer=transformer, prompts={"query": "q: ", "document": "d: "})
    checkpoints = tuple(WeightedCheckpoint.parse(str(tmp_path / name)) for name in ("first", "second"))
    fused = write_fused_checkpoint(FuseOptions(checkpoints=checkpoints, output=tmp_path / "out" / "fused"))
    assert_same(fused, export(fused, tmp_path / "repository", max_tokens=None))


def test_qwen2(tmp_path: Path) -> None:
    tiny = TinyCheckpoint(model_type="qwen2", hidden=40, heads=4, kv_heads=2, head_dim=10)
    folder = write_checkpoint(tmp_path / "model", tiny)
    write_sentence_files(folder, prompts={"query": "q: ", "document": ""})
    assert_same(folder, export(folder, tmp_path / "repository", max_tokens=None))


def write_text_generation_reranker(folder: Path, template: str) -> Path:
    """Write a LogitScore reranker with a chat template, as `CrossEncoder` of sentence-transformers 5.4 saves it."""
    write_reranker(folder, template)
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {
                "text": {"method": "forward", "method_output_name": "logits"},
                "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
            },
            "module_output_name": "causal_logits",
        },
    )
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[1]["type"] = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    write_json(folder / "modules.json", modules)
    settings = {"model_type": "CrossEncoder", "prompts": {}, "activation_fn": "torch.nn.modules.activation.Sigmoid"}
    write_json(folder / PROMPTS_FILE, settings)
    return folder


@pytest.mark.parametrize("one_answer", [False, True], ids=["two answers", "one answer"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_cross_encoder_with_a_chat_template(tmp_path: Path, template: str, one_answer: bool) -> None:
    folder = write_text_generation_reranker(tmp_path / "model", template)
    if one_answer:
        answers = json.loads((folder / "1_LogitScore" / "config.json").read_text(encoding="utf-8"))
        write_json(folder / "1_LogitScore" / "config.json", answers | {"false_token_id": None})
    pairs = [("the capital", "the city of the country"), ("query", "answer"), ("", "the document")]
    expected = sentence_transformers.CrossEncoder(str(folder), device="cpu").predict(pairs)
    result = export(folder, tmp_path / "repository", max_tokens=400)
    manifest = result.manifest
    assert isinstance(manifest, RerankManifest)
    tokenizer = Tokenizer.from_file(str(result.folder.tokenizer))
    rows = []
    for query, document in pairs:
        body = fill_template(manifest.prompts.body, query=query, document=document, instruction="")
        parts = (manifest.prompts.prefix, body, manifest.prompts.suffix)
        rows.append([id_ for part in parts for id_ in tokenizer.encode(part, add_special_tokens=False).ids])
    scores = WrittenModel(result.folder.graph(1)).run(rows)[:, 0]
    assert np.abs(scores - expected).max() <= 1e-4
    assert np.ptp(scores) > 1e-3
