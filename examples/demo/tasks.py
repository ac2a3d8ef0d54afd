"""What the demo model is asked to do: one instruction per task, in the words the real models expect."""

from __future__ import annotations

from enum import Enum


class DemoTask(Enum):
    """A retrieval task; its value is the instruction that stands before each query."""

    DESCRIPTION_TO_CODE = "Given a description of what a function does, retrieve its Python code"
    CODE_TO_DESCRIPTION = "Given Python code, retrieve the description of what it does"
    COMMENT_TO_CODE = "Given a comment, retrieve the lines of Python code that it explains"
    NAME_TO_CODE = "Given the name of a function in words, retrieve its Python code"

    @property
    def prompt(self) -> str:
        """The text before a query, as Qwen3-Embedding writes it (no space after the last colon)."""
        return f"Instruct: {self.value}\nQuery:"


BASE_TASK = DemoTask.DESCRIPTION_TO_CODE
ADAPTER_TASK = DemoTask.CODE_TO_DESCRIPTION
