"""A reranker's answer tokens, instruction and length limit, from its sentence-transformers files."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UnsupportedCheckpointError
from .config import read_json
from .modules import MODULES_FILE, Module, read_modules
from .sentence_transformers import PROMPTS_FILE, StatedLength, read_length, read_prompts
from .setting_files import SettingFiles

LOGIT_SCORE = "LogitScore"
"""The sentence-transformers module that computes a score from a causal LM's logits."""
_MODULES = ("Transformer", LOGIT_SCORE)


@dataclass(frozen=True, slots=True)
class AnswerIds:
    """Token ids of the answers, whose logits after the prompt give the score."""

    no: int | None
    """None if the score is the sigmoid of the other logit alone."""
    yes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEncoderSettings:
    """What the files state about a reranker."""

    instruction: str | None
    """Default instruction; None if no file states one."""
    length: StatedLength | None
    """None if no file states one."""
    answers: AnswerIds | None
    """Token ids of LogitScore; None without that module."""


def read_cross_encoder_settings(files: SettingFiles) -> CrossEncoderSettings:
    """Return the settings that apply.

    Raises UnsupportedCheckpointError for other modules, for answers that are not token ids, and for a default prompt
    without LogitScore.
    """
    modules = read_modules(files)
    for module in modules:
        if module.kind not in _MODULES:
            raise UnsupportedCheckpointError(
                f"{files.find(MODULES_FILE)}: module '{module.kind}' is not supported; the graph ends with the score "
                "of the last token; set the task to embed if this is an embedding model"
            )
    answers = next((_read_answers(module) for module in modules if module.kind == LOGIT_SCORE), None)
    return CrossEncoderSettings(
        instruction=_read_instruction(files, prompted=answers is not None),
        length=read_length(files),
        answers=answers,
    )


def _read_answers(module: Module) -> AnswerIds:
    file = module.directory / "config.json"
    stated = read_json(file)
    yes, no = stated.get("true_token_id"), stated.get("false_token_id")
    if type(yes) is not int or not (no is None or type(no) is int):
        raise UnsupportedCheckpointError(
            f"{file}: true_token_id {yes!r} must be a token id, and false_token_id {no!r} must be one or null; the "
            "score is the softmax of their logits, or the sigmoid of the first alone"
        )
    return AnswerIds(no=no, yes=yes)


def _read_instruction(files: SettingFiles, *, prompted: bool) -> str | None:
    """The default prompt, which a model with LogitScore inserts as the instruction."""
    file = files.find(PROMPTS_FILE)
    settings = {} if file is None else read_json(file)
    name = settings.get("default_prompt_name")
    prompt = read_prompts(settings, str(file)).get(str(name)) if name else None
    if not prompt:
        return None
    if not prompted:
        raise UnsupportedCheckpointError(
            f"{file}: the prompt {prompt!r} would be inserted before every query, which the reranker's template does "
            "not do; remove it there, or pass it as the instruction if it is one"
        )
    return str(prompt)
