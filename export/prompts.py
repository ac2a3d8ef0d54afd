"""The default instruction of a contract's prompts."""

from __future__ import annotations

import dataclasses

from ..client.contract import Prompts
from .errors import ExportError


def override_instruction(prompts: Prompts, instruction: str | None) -> Prompts:
    """`prompts` with another default instruction, or as they are where it is None.

    Raises ExportError where the query template has no place for one.
    """
    if instruction is None:
        return prompts
    if "{instruction}" not in prompts.query:
        raise ExportError("--instruction: the checkpoint's query prompt has no place for an instruction")
    return dataclasses.replace(prompts, default_instruction=instruction)
