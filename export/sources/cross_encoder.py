"""What sentence-transformers' files beside a reranker say about its answer tokens, instruction and length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import UnsupportedCheckpointError
from .config import read_json
from .sentence_transformers import DEFAULT_INSTRUCTION, Module, read_length, read_modules, read_prompt_settings

LOGIT_SCORE = "LogitScore"
"""The module that makes a score of a causal LM's logits."""
_MODULES = ("Transformer", LOGIT_SCORE)


@dataclass(frozen=True, slots=True)
class AnswerIds:
    """The tokens whose logits at the end of the prompt are compared."""

    no: int
    yes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderSettings:
    """What the files state; where they are missing, the model card's instruction and nothing else."""

    instruction: str
    max_tokens: int | None
    answers: AnswerIds | None
    """Token ids of LogitScore, None without that module."""


def read_cross_encoder_settings(directory: Path) -> CrossEncoderSettings:
    """The settings of `directory`.

    Raises UnsupportedCheckpointError for further modules, for a score of one token's logit alone, and for a prompt
    of unknown place.
    """
    modules = read_modules(directory)
    for module in modules:
        if module.kind not in _MODULES:
            raise UnsupportedCheckpointError(
                f"{directory / 'modules.json'}: module '{module.kind}' is not supported; the graph ends with the score "
                "of the last token; set the task to embed if this is an embedding model"
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
    """The default prompt, which a model with LogitScore puts where the instruction stands."""
    settings = read_prompt_settings(directory)
    name = settings.get("default_prompt_name")
    prompt = (settings.get("prompts") or {}).get(name) if name else None
    if not prompt:
        return DEFAULT_INSTRUCTION
    if not prompted:
        raise UnsupportedCheckpointError(
            f"{directory}: config_sentence_transformers.json puts the prompt {prompt!r} before every query, which the "
            "reranker's template has no place for; remove it there, or pass it as the instruction if it is one"
        )
    return str(prompt)
