"""Retrieval tasks of the demo model, each with an instruction in the style of the published models."""

from __future__ import annotations

from enum import Enum


class DemoTask(Enum):
    """A retrieval task; its value is the instruction before each query."""

    DESCRIPTION_TO_CODE = "Given a description of what a function does, retrieve its Python code"
    CODE_TO_DESCRIPTION = "Given Python code, retrieve the description of what it does"
    COMMENT_TO_CODE = "Given a comment, retrieve the lines of Python code that it explains"
    NAME_TO_CODE = "Given the name of a function in words, retrieve its Python code"

    @property
    def prompt(self) -> str:
        """Text before a query, in the format of Qwen3-Embedding (no space after the last colon)."""
        return f"Instruct: {self.value}\nQuery:"


BASE_TASK = DemoTask.DESCRIPTION_TO_CODE
ADAPTER_TASK = DemoTask.CODE_TO_DESCRIPTION
