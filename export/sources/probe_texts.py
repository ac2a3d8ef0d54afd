"""Texts for the parity check of every export: several scripts, code, emoji, very short and long texts."""

from __future__ import annotations

PROBE_TEXTS = (
    "",
    "a",
    "What is the capital of China?",
    "The capital of China is Beijing.",
    "import os\nimport sys\n\ndef main() -> int:\n    return len(sys.argv)\n",
    "SELECT name, count(*) FROM orders GROUP BY name HAVING count(*) > 3;",
    "Ein Zug fährt über die Brücke, während es regnet.",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "人工智能正在改变我们的生活方式。",
    "東京は日本の首都です。人口は約千四百万人です。",
    "القطط تنام معظم ساعات النهار",
    "दिल्ली भारत की राजधानी है",
    "🙂🚀 party time 🎉👩‍👩‍👧‍👦",
    "x" * 90,
    "1 + 1 = 2; π ≈ 3.14159, ∑ᵢ xᵢ² ≤ ‖x‖²",
    "Gravity is a force that attracts two bodies towards each other. " * 6,
)

PROBE_PAIRS = (
    *zip(PROBE_TEXTS, (*PROBE_TEXTS[1:], PROBE_TEXTS[0]), strict=True),
    *((text, text) for text in PROBE_TEXTS[2:6]),
)
"""Queries and documents: each text with the next one, which is a relevant document once, and some with themselves."""

_SENTENCES_PER_TOKEN = 4 / 16
LONG_SENTENCE = "A long document repeats itself, number {number}, and says little that is new. "


def long_text(tokens: int) -> str:
    """Return numbered sentences of about 16 tokens each, in total more than `tokens` with any tokenizer."""
    sentences = int(tokens * _SENTENCES_PER_TOKEN) + 4
    return "".join(LONG_SENTENCE.format(number=number) for number in range(sentences))
