"""Texts of which no two are equal, so that a client computes each of them."""

from __future__ import annotations


def distinct_texts(count: int, length: int = 4) -> list[str]:
    """Return texts of `length` characters."""
    return [f"{number:0{length}}" for number in range(count)]
