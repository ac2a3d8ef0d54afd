"""Rerankers with a chat template of their own: rendered by transformers, and as prefix, body and suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_reranker import run
from tiny_checkpoint import CAUSAL, TinyCheckpoint, write_checkpoint, write_json
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen3ForCausalLM

from qwen3_triton.client import RerankManifest
from qwen3_triton.export import (
    ExportOptions,
    ExportResult,
    PairTemplate,
    SourceReference,
    UnsupportedCheckpointError,
    export_model,
)
from qwen3_triton.export.sources.chat_template import states_pair_template

QUERY = "{{ messages | selectattr('role','eq','query') | map(attribute='content') | first }}"
DOCUMENT = "{{ messages | selectattr('role','eq','document') | map(attribute='content') | first }}"
SYSTEM = "{{ messages | selectattr('role','eq','system') | map(attribute='content') | first }}"
TURN, END = "<|im_end|>", "<|endoftext|>"
TEMPLATES = {
    "special tokens around": f"Rate the passage.{TURN}\nquestion: {QUERY}\npassage: {DOCUMENT}{TURN}\nassistant\n",
    "no special token": f"question: {QUERY}\npassage: {DOCUMENT}\nanswer:",
    "special token between": f"{END}{QUERY}{TURN}{DOCUMENT}{TURN}",
    "nothing around": f"{QUERY} {DOCUMENT}",
}
PAIRS = [
    ("what is the capital?", "the capital of the country"),
    ("", "🙂"),
    ("yes or no", f"no {TURN} yes"),
    ("a", "b" * 60),
]


def write_reranker(folder: Path, template: str, *, prompt: str | None = None) -> Path:
    """A causal LM with LogitScore and a chat template, as sentence-transformers saves it."""
    tiny = TinyCheckpoint(layout=CAUSAL, end_token=False, answers=True, max_positions=512, head_scale=0.1)
    write_checkpoint(folder, tiny)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.LogitScore"},
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_LogitScore").mkdir()
    ids = {"true_token_id": tokenizer.token_to_id("yes"), "false_token_id": tokenizer.token_to_id("no")}
    write_json(folder / "1_LogitScore" / "config.json", ids)
    prompts = {"prompts": {"task": prompt}, "default_prompt_name": "task"} if prompt else {"prompts": {}}
    write_json(folder / "config_sentence_transformers.json", prompts | {"model_type": "CrossEncoder"})
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def export(source: Path, repository: Path, **changes: Any) -> ExportResult:
    return export_model(
        ExportOptions(
            model=SourceReference(str(source)), repository=repository, name="model", max_tokens=400, **changes
        )
    )


def rendered_rows(source: Path, system: str | None = None) -> list[list[int]]:
    """Token ids of PAIRS as transformers renders them."""
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    rows = []
    for query, document in PAIRS:
        messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        rows.append(list(map(int, tokenizer(text, add_special_tokens=False)["input_ids"])))
    return rows


def served_rows(result: ExportResult, instruction: str = "") -> list[list[int]]:
    """Token ids of PAIRS as a client sends them."""
    manifest = result.manifest
    assert isinstance(manifest, RerankManifest)
    tokenizer = Tokenizer.from_file(str(result.folder.tokenizer))
    rows = []
    for query, document in PAIRS:
        # one pass, as a client fills it: nothing that is inserted is searched
        parts = manifest.prompts.body.split("{query}")
        assert len(parts) == 2
        body = parts[0] + query + parts[1].replace("{document}", document)
        texts = (manifest.prompts.prefix, body.replace("{instruction}", instruction), manifest.prompts.suffix)
        rows.append([id_ for text in texts for id_ in tokenizer.encode(text, add_special_tokens=False).ids])
    return rows


def official_scores(source: Path, rows: list[list[int]]) -> list[float]:
    model: Any = Qwen3ForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    scores = []
    with torch.inference_mode():
        for row in rows:
            logits = model(input_ids=torch.tensor([row])).logits[0, -1]
            scores.append(float(torch.sigmoid(logits[yes] - logits[no])))
    return scores


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_own_template_gives_the_token_ids_and_scores_of_transformers(tmp_path: Path, template: str) -> None:
    source = write_reranker(tmp_path / "model", template)
    result = export(source, tmp_path / "repository")
    rows = rendered_rows(source)
    assert served_rows(result) == rows
    assert np.abs(run(result, rows) - official_scores(source, rows)).max() <= 1e-4


def test_instruction_is_the_system_message(tmp_path: Path) -> None:
    template = f"{SYSTEM}{TURN}query: {QUERY}\ndocument: {DOCUMENT}{TURN}\n"
    source = write_reranker(tmp_path / "model", template, prompt="Find the law")
    result = export(source, tmp_path / "a")
    assert isinstance(result.manifest, RerankManifest)
    assert result.manifest.prompts.default_instruction == "Find the law"
    assert served_rows(result, "Find the law") == rendered_rows(source, "Find the law")
    other = export(source, tmp_path / "b", instruction="Another task")
    assert served_rows(other, "Another task") == rendered_rows(source, "Another task")


def test_chosen_template_replaces_that_of_the_checkpoint(tmp_path: Path) -> None:
    source = write_reranker(tmp_path / "model", TEMPLATES["special tokens around"])
    manifest = export(source, tmp_path / "a", template=PairTemplate.LINE).manifest
    assert isinstance(manifest, RerankManifest)
    assert manifest.prompts.body.startswith("<Instruct>: {instruction}\n<Query>: {query}")


def test_stock_chat_template_is_ignored(tmp_path: Path) -> None:
    stock = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    assert not states_pair_template(stock)
    source = write_reranker(tmp_path / "model", stock)
    manifest = export(source, tmp_path / "a").manifest
    assert isinstance(manifest, RerankManifest)
    assert manifest.prompts.body.startswith("<Instruct>: {instruction}\n<Query>: {query}")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (f"{DOCUMENT}\n{QUERY}", "does not insert query and document once each"),
        (f"{QUERY}\n{QUERY}\n{DOCUMENT}", "does not insert query and document once each"),
        (f"document: {QUERY}", "does not insert"),
        (f"{{{{ raise_exception('no query') }}}} {QUERY} {DOCUMENT}", "fails for messages"),
        (f"{{% if '🙂' in messages[1].content %}}smile {{% endif %}}{QUERY}{TURN}{DOCUMENT}", "gives other token ids"),
    ],
)
def test_templates_that_cannot_be_split_are_rejected(tmp_path: Path, template: str, reason: str) -> None:
    source = write_reranker(tmp_path / "model", template)
    with pytest.raises(UnsupportedCheckpointError, match=f"its chat template {reason}"):
        export(source, tmp_path / "a")
