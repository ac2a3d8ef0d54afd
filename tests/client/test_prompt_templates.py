from __future__ import annotations

import pytest

from qwen3_triton.client import InvalidInputError, ManifestError, Prompts
from qwen3_triton.client.prompts import prompt_documents, prompt_queries

QWEN = Prompts(query="Instruct: {instruction}\nQuery:{text}", document="{text}", default_instruction="find it")


def test_default_instruction() -> None:
    assert prompt_queries(QWEN, ["a", "b"]) == ["Instruct: find it\nQuery:a", "Instruct: find it\nQuery:b"]


def test_custom_instruction_may_be_empty() -> None:
    assert prompt_queries(QWEN, ["a"], "rank") == ["Instruct: rank\nQuery:a"]
    assert prompt_queries(QWEN, ["a"], "") == ["Instruct: \nQuery:a"]


@pytest.mark.parametrize("text", ["{instruction}", "{text}", "{", "}{0}", "{{}}", "%s", "\\1", ""])
def test_texts_and_instructions_stay_literal(text: str) -> None:
    assert prompt_queries(QWEN, [text], text) == [f"Instruct: {text}\nQuery:{text}"]
    assert prompt_documents(QWEN, [text]) == [text]


def test_braces_of_a_template_stay_literal() -> None:
    prompts = Prompts(query='{"q": "{text}"}', document="{}{text}", default_instruction=None)
    assert prompt_queries(prompts, ["a"]) == ['{"q": "a"}']
    assert prompt_documents(prompts, ["a"]) == ["{}a"]


def test_instruction_for_a_template_without_one() -> None:
    with pytest.raises(InvalidInputError, match="takes no instruction"):
        prompt_queries(Prompts(query="q: {text}", document="{text}", default_instruction=None), ["a"], "rank")


def test_missing_instruction() -> None:
    prompts = Prompts(query=QWEN.query, document="{text}", default_instruction=None)
    with pytest.raises(InvalidInputError, match="needs an instruction"):
        prompt_queries(prompts, ["a"])


@pytest.mark.parametrize("instruction", [3, "a\udc00"])
def test_bad_instruction(instruction: str) -> None:
    with pytest.raises(InvalidInputError, match="instruction"):
        prompt_queries(QWEN, ["a"], instruction)


@pytest.mark.parametrize("template", ["no placeholder", "{text} {text}"])
def test_template_needs_the_text_placeholder_once(template: str) -> None:
    with pytest.raises(ManifestError, match="exactly once"):
        prompt_documents(Prompts(query="{text}", document=template, default_instruction=None), ["a"])
