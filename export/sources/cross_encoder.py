"""A reranker's answer tokens, instruction and length limit, from its sentence-transformers files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UnsupportedCheckpointError
from .config import read_json
from .sentence_transformers import DEFAULT_INSTRUCTION, Module, read_length, read_modules, read_prompt_settings

LOGIT_SCORE = "LogitScore"
"""The sentence-transformers module that computes a score from a causal LM's logits."""
_MODULES = ("Transformer", LOGIT_SCORE)


@dataclass(frozen=True, slots=True)
class AnswerIds:
    """Token ids of the two answers, whose logits after the prompt give the score."""

    no: int
    yes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderSettings:
    """Settings of the files, with the model card's instruction as the default."""

    instruction: str
    max_tokens: int | None
    answers: AnswerIds | None
    """Token ids of the LogitScore module; None if there is no such module."""


def read_cross_encoder_settings(directory: Path) -> CrossEncoderSettings:
    """Read the settings in `directory`.

    Raises:
        UnsupportedCheckpointError: There are other modules, the score uses one token's logit only, or the template has
            no place for the prompt.
    """
    modules = read_modules(directory)
    for module in modules:
        if module.kind not in _MODULES:
            raise UnsupportedCheckpointError(
                f"{directory / 'modules.json'}: module '{module.kind}' is not supported, because the graph ends with "
                "the score of the last token; set the task to embed if this is an embedding model"
            )
    answers = next((_read_answers(module) for module in modules if module.kind == LOGIT_SCORE), None)
    return CrossEncoderSettings(
        instruction=_read_instruction(directory, prompted=answers is not None),
        max_tokens=read_length(directory),
        answers=answers,
    )


def _read_answers(module: Module) -> AnswerIds:
    file = module.directory / "config.json"
    stated = read_json(file)
    yes, no = stated.get("true_token_id"), stated.get("false_token_id")
    if type(yes) is not int or type(no) is not int:
        raise UnsupportedCheckpointError(
            f"{file}: true_token_id {yes!r} and false_token_id {no!r} must both be token ids; the score is the "
            "softmax of their logits"
        )
    return AnswerIds(no=no, yes=yes)


def _read_instruction(directory: Path, *, prompted: bool) -> str:
    """Read the default prompt, which is the instruction of a model with LogitScore."""
    settings = read_prompt_settings(directory)
    name = settings.get("default_prompt_name")
    prompt = (settings.get("prompts") or {}).get(name) if name else None
    if not prompt:
        return DEFAULT_INSTRUCTION
    if not prompted:
        raise UnsupportedCheckpointError(
            f"{directory}: config_sentence_transformers.json puts the prompt {prompt!r} before every query, but the "
            "reranker's template has no place for it; remove it there, and set it as the instruction if it is one"
        )
    return str(prompt)
