"""Progress that keeps the notes of an export."""

from __future__ import annotations

from qwen3_triton.export import SilentProgress


class Notes(SilentProgress):
    """Records notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Record a note."""
        self.notes.append(text)
