from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

import pytest
from sample_manifest import END_TOKEN, END_TOKEN_ID, make_manifest, make_rerank_manifest

from qwen3_triton.client import EmbeddingManifest, InvalidInputError, ManifestError, TokenizerIdentity
from qwen3_triton.client.texts import check_texts
from qwen3_triton.client.tokenization import RowTokenizer, load_tokenizer, make_pair_tokenizer
from qwen3_triton.client.tokenizer_source import TokenizerFile, find_tokenizer

QWEN3 = Path(__file__).parents[3] / "shared" / "tokenizers" / "qwen3" / "tokenizer.json"


def tokenize(
    file: Path, manifest: EmbeddingManifest, texts: list[str], max_tokens: int = 200, truncate: bool = True
) -> list[list[int]]:
    loaded = load_tokenizer(TokenizerFile.read(file), manifest.tokenizer)
    limited = RowTokenizer(tokenizer=loaded, end_token_id=manifest.end_token_id, max_tokens=max_tokens)
    rows = limited.tokenize(texts, check_texts(texts).describe, truncate=truncate)
    return [rows.row(index).tolist() for index in range(len(texts))]


@pytest.mark.parametrize("text", ["abc", f"abc{END_TOKEN}", f"abc{END_TOKEN * 3}"])
def test_exactly_one_end_token_at_the_end(tokenizer_file: Path, manifest: EmbeddingManifest, text: str) -> None:
    [row] = tokenize(tokenizer_file, manifest, [text])
    assert row[-1] == END_TOKEN_ID
    assert row.count(END_TOKEN_ID) == 1
    assert len(row) == 4


def test_end_token_inside_a_text_is_kept(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    [row] = tokenize(tokenizer_file, manifest, [f"a{END_TOKEN}b"])
    assert [position for position, id_ in enumerate(row) if id_ == END_TOKEN_ID] == [1, 3]


def test_empty_text_is_its_end_token(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    assert tokenize(tokenizer_file, manifest, ["", END_TOKEN]) == [[END_TOKEN_ID], [END_TOKEN_ID]]


def test_padding_and_truncation_of_the_file_are_disabled(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    assert [len(row) for row in tokenize(tokenizer_file, manifest, ["a", "b" * 50])] == [2, 51]


@pytest.mark.parametrize("max_tokens", [1, 2, 7, 20, 21])
def test_truncation_keeps_the_first_ids_and_the_end_token(
    tokenizer_file: Path, manifest: EmbeddingManifest, max_tokens: int
) -> None:
    text = "abcdefghijklmnopqrst"
    [whole], [row] = (tokenize(tokenizer_file, manifest, [text], limit) for limit in (200, max_tokens))
    assert row == [*whole[:-1][: max_tokens - 1], END_TOKEN_ID]


def test_truncation_after_an_inner_end_token_does_not_double_it(
    tokenizer_file: Path, manifest: EmbeddingManifest
) -> None:
    [row] = tokenize(tokenizer_file, manifest, [f"ab{END_TOKEN}cd"], max_tokens=4)
    assert row.count(END_TOKEN_ID) == 1
    assert row[-1] == END_TOKEN_ID


def test_over_long_text_without_truncation(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    assert len(tokenize(tokenizer_file, manifest, ["a" * 9], max_tokens=10, truncate=False)[0]) == 10
    with pytest.raises(InvalidInputError, match=r"texts\[1\] \('bbbbbbbbbb'\) has 11 tokens .* accepts 10"):
        tokenize(tokenizer_file, manifest, ["a", "b" * 10], max_tokens=10, truncate=False)


def test_random_texts_end_once_and_fit(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    rng = random.Random(5)
    pieces = ["a", "é", "漢", " ", "\n", END_TOKEN, "<|im_end|>", "{text}"]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(30))) for _ in range(300)]
    for text, row in zip(texts, tokenize(tokenizer_file, manifest, texts, max_tokens=24), strict=True):
        assert 1 <= len(row) <= 24
        assert row[-1] == END_TOKEN_ID
        assert row[-2:-1] != [END_TOKEN_ID], text


def test_no_end_token_policy(tokenizer_file: Path, tmp_path: Path) -> None:
    plain = tmp_path / "tokenizer.json"
    content = load_tokenizer(TokenizerFile.read(tokenizer_file), make_manifest(tokenizer_file).tokenizer)
    content.post_processor = None
    content.save(str(plain))
    manifest = make_manifest(plain, end_token_id=None)
    [ended, truncated] = tokenize(plain, manifest, [f"a{END_TOKEN}", "abcdef"], max_tokens=3)
    assert ended[-1] == END_TOKEN_ID
    assert [len(ended), len(truncated)] == [2, 3]
    with pytest.raises(InvalidInputError, match=r"texts\[1\] \(''\) has no tokens"):
        tokenize(plain, manifest, ["a", ""])


@pytest.fixture
def exploding_file(tokenizer_file: Path, tmp_path: Path) -> Path:
    """A tokenizer whose expression takes 2^90 steps for 90 letters x, of which the library takes ten million."""
    state = json.loads(tokenizer_file.read_text())
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, state["pre_tokenizer"]]}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(state))
    return file


def test_text_that_the_tokenizer_gives_up_is_named(exploding_file: Path) -> None:
    manifest = make_manifest(exploding_file)
    texts = ["a" * 500, "x" * 90, "b"]
    with pytest.raises(InvalidInputError, match=r"texts\[1\] \('x+…'\) cannot be tokenized \(.*retry.*\): split it"):
        tokenize(exploding_file, manifest, texts)
    assert [len(row) for row in tokenize(exploding_file, manifest, ["a" * 50, "b"])] == [51, 2]


def test_prompt_that_the_tokenizer_gives_up_is_named(exploding_file: Path) -> None:
    manifest = make_rerank_manifest(exploding_file)
    tokenizer = load_tokenizer(TokenizerFile.read(exploding_file), manifest.tokenizer)
    with pytest.raises(ManifestError, match="tokenizer cannot process its prompt"):
        make_pair_tokenizer(tokenizer, "x" * 90, "", 200)
    pairs = make_pair_tokenizer(tokenizer, "p", "s", 200)
    with pytest.raises(InvalidInputError, match=r"documents\[0\] \('d'\) with its query cannot be tokenized"):
        pairs.tokenize([f"{'x' * 90} d"], check_texts(["d"], "documents").describe, lambda _: "", truncate=True)


def test_ten_million_spaces_are_named(project_root: Path) -> None:
    file = project_root / "examples" / "demo" / "checkpoint" / "tokenizer.json"
    with pytest.raises(InvalidInputError, match=r"texts\[0\] \(' +…'\) cannot be tokenized .*shorten runs of spaces"):
        tokenize(file, make_manifest(file), [" " * 10_100_000])


def test_nul_is_a_character(tokenizer_file: Path, manifest: EmbeddingManifest) -> None:
    assert [len(row) for row in tokenize(tokenizer_file, manifest, ["a\0b", "\0"])] == [4, 2]


def test_tokenizer_that_is_a_pipe(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    os.mkfifo(file)
    with pytest.raises(InvalidInputError, match=r"cannot read .*tokenizer\.json: not a regular file"):
        find_tokenizer("m", "x/y", tokenizer=file)


def test_wrong_hash(tokenizer_file: Path) -> None:
    with pytest.raises(ManifestError, match="not the model's tokenizer"):
        load_tokenizer(TokenizerFile.read(tokenizer_file), TokenizerIdentity(sha256="f" * 64, origin="x"))


def test_right_hash_of_a_file_that_is_not_a_tokenizer(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    identity = TokenizerIdentity(sha256=hashlib.sha256(b"{}").hexdigest(), origin="x")
    with pytest.raises(ManifestError, match="upgrade tokenizers"):
        load_tokenizer(TokenizerFile.read(file), identity)


@pytest.mark.skipif(not QWEN3.is_file(), reason="needs Qwen3's tokenizer.json")
@pytest.mark.parametrize("max_tokens", [2, 5, 16, 4096])
def test_equals_transformers(max_tokens: int) -> None:
    transformers = pytest.importorskip("transformers")
    official = transformers.PreTrainedTokenizerFast(tokenizer_file=str(QWEN3))
    texts = [
        "",
        "yes",
        "What is the capital of China?",
        "Instruct: find it\nQuery:naïve café 東京 🦊 {x}",
        "import numpy as np\n\n\ndef f(x):\n    return x<|im_end|>",
        " ".join(f"word{number}" for number in range(400)),
    ]
    manifest = make_manifest(QWEN3, end_token_id=151643)
    expected = official(texts, truncation=True, max_length=max_tokens)["input_ids"]
    assert tokenize(QWEN3, manifest, texts, max_tokens=max_tokens) == expected
