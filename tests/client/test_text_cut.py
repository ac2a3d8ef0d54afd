"""Long texts are cut before they are tokenized, without a change of the tokens that are kept."""

from __future__ import annotations

import random
import re
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from qwen3_triton.client import InvalidInputError
from qwen3_triton.client.text_cut import _LETTER, _MARKS, TextCut
from qwen3_triton.client.tokenization import RowTokenizer, make_pair_tokenizer

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo" / "checkpoint" / "tokenizer.json"
QWEN3 = ROOT.parent / "shared" / "tokenizers" / "qwen3" / "tokenizer.json"
LIMIT = 50
ALPHABETS = [
    "abcdefghij ABC  .,",
    "the quick, brown.fox 's don't\n\n\t  12345 !!! …--",
    "déjà vu naïve e\u0301cole A\u030a ñandú ",
    "чтобы сделать это, нужно.привет ",
    "中文文本，没有空格。日本語のテキスト、カタカナ",
    "한국어 텍스트, 가나다 \u1100\u1161\u11a8",
    "नमस्ते दुनिया، مرحبا بالعالم שלום ",
    "<|im_end|> <|endoftext|>a,b <think>c </think>",
    "    \t\n  a ",
    "😀🏳️‍🌈 emoji, mixed.with words ",
]


@pytest.fixture(scope="module", params=[DEMO, QWEN3], ids=["demo", "Qwen3"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if not request.param.exists():
        pytest.skip("the Qwen3 tokenizer is not on this machine")
    return Tokenizer.from_file(str(request.param))


def random_text(rng: random.Random) -> str:
    alphabets = rng.sample(ALPHABETS, rng.randint(1, 3))
    words = [
        "".join(rng.choices(rng.choice(alphabets), k=rng.randint(1, 12))) + rng.choice([" ", "", ", ", "\n", "。"])
        for _ in range(rng.randint(50, 600))
    ]
    return "".join(words)


@pytest.mark.parametrize("characters_per_token", [1, 6], ids=["cut again", "cut once"])
def test_the_tokens_that_are_kept_do_not_change(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, characters_per_token: int
) -> None:
    monkeypatch.setattr("qwen3_triton.client.text_cut._CHARACTERS_PER_TOKEN", characters_per_token)
    rng = random.Random(11)
    texts = [random_text(rng) for _ in range(300)]
    cut = TextCut.for_tokenizer(tokenizer)
    assert cut.tokenizer_allows_cut
    lengths: list[int] = []

    def encode(parts: list[str], _: object) -> list[list[int]]:
        lengths.extend(map(len, parts))
        return [tokenizer.encode(part).ids for part in parts]

    rows, is_cut = cut.encode(texts, LIMIT, encode, str)  # type: ignore[arg-type]
    for text, row, was_cut in zip(texts, rows, is_cut, strict=True):
        whole = tokenizer.encode(text).ids
        assert row[:LIMIT] == whole[:LIMIT]
        assert was_cut or row == whole
        assert not was_cut or len(row) > LIMIT
    # most of these texts are long enough to be cut
    assert sum(is_cut) > 150
    assert len(lengths) > len(texts) or characters_per_token == 6
    assert sum(lengths) < 0.6 * sum(map(len, texts))


@pytest.mark.parametrize("text", ["x" * 5_000, " " * 5_000, "12" * 2_500, "!" * 5_000, "中" * 5_000])
def test_a_text_without_a_place_for_a_cut_is_tokenized_whole(tokenizer: Tokenizer, text: str) -> None:
    rows = RowTokenizer(tokenizer=tokenizer, end_token_id=None, max_tokens=LIMIT)
    found = rows.tokenize([text], str, truncate=True)
    assert found.ids.tolist() == tokenizer.encode(text).ids[:LIMIT]


def test_rows_and_pairs_of_long_texts(tokenizer: Tokenizer) -> None:
    text = "Sorting lists is easy, as the documentation of Python says. " * 3_000
    rows = RowTokenizer(tokenizer=tokenizer, end_token_id=7, max_tokens=LIMIT).tokenize([text], str, truncate=True)
    assert rows.ids.tolist() == [*tokenizer.encode(text, add_special_tokens=False).ids[: LIMIT - 1], 7]
    pairs = make_pair_tokenizer(tokenizer, "before", "after", LIMIT)
    found = pairs.tokenize([text], str, lambda _: "", truncate=True)
    room = LIMIT - len(pairs.prefix) - len(pairs.suffix)
    body = tokenizer.encode(text, add_special_tokens=False).ids[:room]
    assert found.ids.tolist() == [*pairs.prefix, *body, *pairs.suffix]


def test_a_text_that_must_not_be_truncated(tokenizer: Tokenizer) -> None:
    text = "Sorting lists is easy. " * 3_000
    rows = RowTokenizer(tokenizer=tokenizer, end_token_id=7, max_tokens=LIMIT)
    with pytest.raises(InvalidInputError, match=r"0 has more than \d+ tokens .*, but the model accepts 50"):
        rows.tokenize([text], str, truncate=False)


def test_other_tokenizers_get_whole_texts(tokenizer_file: Path, tokenizer: Tokenizer) -> None:
    assert not TextCut.for_tokenizer(Tokenizer.from_file(str(tokenizer_file))).tokenizer_allows_cut
    changed = Tokenizer.from_str(tokenizer.to_str())
    changed.add_tokens(["a token, with marks"])
    assert not TextCut.for_tokenizer(changed).tokenizer_allows_cut


def test_letters_at_a_cut_are_letters_that_normalization_keeps() -> None:
    """By Unicode's own tables, which the pre-tokenizer's \\p{L} and NFC follow."""
    letters = [chr(code) for code in range(0x10000) if re.fullmatch(_LETTER, chr(code))]
    assert len(letters) > 30_000
    assert [letter for letter in letters if not unicodedata.category(letter).startswith("L")] == []
    assert [letter for letter in letters if unicodedata.normalize("NFC", letter) != letter] == []
    for mark in _MARKS:
        assert not unicodedata.category(mark).startswith(("L", "N", "M"))
        assert mark not in "\r\n"
