"""Instructions of mteb's tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from ..errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInstructions:
    """Instructions for the prompts of queries and pairs."""

    use_tasks: bool = True
    """Use the instructions that mteb defines for its tasks; if False, the model's default."""
    by_task: Mapping[str, str] = field(default_factory=dict)
    """Other instructions, by the name or type of the task, such as `NFCorpus` or `Retrieval`."""

    def find(self, task: TaskMetadata) -> str | None:
        """Return the instruction for a task; None for the model's default."""
        chosen = self.by_task.get(task.name) or self.by_task.get(task.type)
        if chosen or not self.use_tasks:
            return chosen
        prompt = task.prompt
        own = prompt.get(PromptType.query.value) if isinstance(prompt, dict) else prompt
        return own or get_abstask_prompt(task.name) or None

    def check(self, template: str) -> None:
        """Raise InvalidInputError if the model's prompt takes no instruction."""
        if (self.use_tasks or self.by_task) and "{instruction}" not in template:
            raise InvalidInputError(
                f"the model's prompt {template!r} takes no instruction: pass TaskInstructions(use_tasks=False)"
            )

    def changes(self) -> dict[str, object]:
        """Return what differs from the defaults, to keep results apart."""
        defaults = TaskInstructions()
        fields = {"use_tasks": self.use_tasks, "by_task": dict(self.by_task)}
        return {name: value for name, value in fields.items() if value != getattr(defaults, name)}
