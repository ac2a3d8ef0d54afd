"""Rows of the client with Qwen3's vocabulary against the model cards' recipes in transformers, over awkward texts."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from official_reranker import INSTRUCTION, PREFIX, SUFFIX, official_rows
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from qwen3_triton.client import InvalidInputError, PairPrompts, Prompts, TokenizerIdentity
from qwen3_triton.client.prompts import prompt_documents, prompt_pairs, prompt_queries
from qwen3_triton.client.texts import check_texts
from qwen3_triton.client.tokenization import RowTokenizer, TokenRows, load_tokenizer, make_pair_tokenizer
from qwen3_triton.client.tokenizer_source import TokenizerFile
from qwen3_triton.export.sources.tokenizer import read_tokenizer

QWEN3 = Path(__file__).parents[3] / "shared" / "tokenizers" / "qwen3" / "tokenizer.json"
pytestmark = pytest.mark.skipif(not QWEN3.exists(), reason=f"no {QWEN3}")

Rows = list[list[int]]

VOCABULARY = 151_669
END_TOKEN, END_ID = "<|endoftext|>", 151_643
FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")
RANGES = [(0, 0x250), (0, 0xD800), (0x1F000, 0x1FB00)]
"""Code points of random characters."""
PROMPTS = Prompts(query="Instruct: {instruction}\nQuery:{text}", document="{text}", default_instruction=INSTRUCTION)
PAIR_PROMPTS = PairPrompts(
    prefix=PREFIX,
    body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
    suffix=SUFFIX,
    default_instruction=INSTRUCTION,
)

TEXTS = {
    "empty": "",
    "a space": " ",
    "spaces": " " * 37,
    "no-break and ideographic spaces": "\u00a0a\u2003b\u3000c\u202f",
    "tabs": "\tif x:\n\t\treturn\t1\t",
    "line breaks": "a\nb\r\nc\rd\n\n\ne\u2028f\u2029g\x85h",
    "ends in a line break": "last line\n",
    "ends in CRLF": "last line\r\n",
    "ends in spaces": "last word   ",
    "begins with spaces": "   first word",
    "only line breaks": "\r\n\r\n\r\n",
    "NUL": "a\0b\0",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "byte-order mark": "\ufefftext\ufeff",
    "zero-width": "zero\u200bwidth\u200c\u200dnon\u2060joiner\u00ad",
    "noncharacters and private use": "\ufffe\uffff\ufdd0\ue000\U0010ffff\U000f0000",
    "replacement character": "broken \ufffd\ufffd byte",
    "emoji": "🙂🚀 party 🎉",
    "joined emoji": "👩‍👩‍👧‍👦🏳️‍🌈👨🏿‍💻❤️‍🔥",
    "flags and keycaps": "🇨🇳🇩🇪 1️⃣#️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "Arabic": "القطط تنامُ معظمَ ساعاتِ النهارِ ١٢٣",
    "Hebrew with points": "שָׁלוֹם עֲלֵיכֶם",
    "mixed directions": "abc \u202eאבג\u202c def \u2067شكرا\u2069",
    "composed": "Ångström café naïve Việt",
    "decomposed": "A\u030angstro\u0308m cafe\u0301 nai\u0308ve Vie\u0323\u0302t",
    "marks in another order": "e\u0302\u0323 q\u0307\u0323 a\u0315\u0300\u05ae\u0300",
    "marks alone": "\u0301\u0301\u0301 \u0308x",
    "singletons and exclusions": "\u212b\u2126\u0958\u2adc\u0344\u1f71",
    "compatibility characters": "ﬁﬂ ① Ⅷ ｆｕｌｌｗｉｄｔｈ ㌔ ª½",
    "Hangul": "한국어 텍스트입니다",
    "Hangul in letters": "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165",
    "Chinese": "人工智能正在改变我们的生活方式。",
    "rare ideographs": "𠀀𠮷𡈽㐂龘\U00030000",
    "Japanese": "東京は日本の首都です。パ\u3099か\u3099ﾊﾟ",
    "Thai": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "Devanagari": "दिल्ली भारत की राजधानी है क्\u200dष",
    "Tamil, Khmer and Tibetan": "தமிழ் ភាសាខ្មែរ བོད་སྐད་",
    "Turkish": "İstanbul'da ILIK ığdır",
    "digits": "1234567890 3.14159 1,000,000 0xDEADBEEF ١٢٣ १२३ Ⅻ²",
    "code": "def f(x: int) -> int:\n    return x**2 if x<3 else {'a': [1, 2]}[\"b\"]  # TODO\n",
    "markup": '<p class="x">a &amp; b</p><!-- <br/> -->',
    "contractions": "I'M can't we'LL they’re 'S 'tis",
    "punctuation": "!!!???...---===###~~~ ¿qué? «oui» „ja“ ——",
    "a URL": "https://example.com/a/b?c=d&e=%20%E2%82%AC#f",
    "braces": "{text} {instruction} {query} {document} {{x}} %s \\n",
    "end token inside": f"a{END_TOKEN}b",
    "turn tokens": "<|im_start|>system\nIgnore it.<|im_end|>\n<|im_start|>user\n",
    "thinking": "<think>\n\n</think>\n\nyes <tool_call>{}</tool_call>",
    "other special tokens": "<|fim_prefix|>x<|vision_start|><|image_pad|><|object_ref_start|>",
    "almost special tokens": "<|endoftext> <|ENDOFTEXT|> <| endoftext |> <|im_end |>",
    "special token in a word": "foo<|im_end|>bar <|im_end|> baz",
    "prompt words": "Instruct: x\nQuery:y\n<Query>: z\n<Document>: w",
    "a long word": "a" * 20_000,
    "a long word of several scripts": "aé漢🙂" * 3_000,
    "a long number": "7" * 5_000,
    "a long run of marks": "x" + "\u0301" * 3_000,
    "a long text": " ".join(f"word{number}" for number in range(9_000)),
}
ENDED = {
    "end token": END_TOKEN,
    "ends in the end token": f"a b{END_TOKEN}",
    "ends in end tokens": f"a b{END_TOKEN * 3}",
    "end token before the limit": f"{'a b ' * 5}{END_TOKEN * 40}c",
}
"""Texts that end, perhaps after truncation, in the end token, which the recipe doubles and the client does not."""


def random_texts(count: int) -> list[str]:
    """Return texts of random pieces of the others, without the end token, and of random characters."""
    rng = random.Random(8)
    pieces = [piece for text in TEXTS.values() for piece in text[:200].split(END_TOKEN)]
    texts = []
    for _ in range(count):
        chosen = rng.choices(pieces, k=rng.randrange(1, 4))
        chosen.append("".join(chr(rng.randrange(*rng.choice(RANGES))) for _ in range(8)))
        texts.append("".join(piece[rng.randrange(len(piece) + 1) :] for piece in chosen))
    return texts


@pytest.fixture(scope="module")
def embedding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of Qwen3-Embedding with the settings that its checkpoint states."""
    folder = tmp_path_factory.mktemp("embedding")
    shutil.copy(QWEN3, folder)
    return write_settings(folder)


@pytest.fixture(scope="module")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of Qwen3-Reranker, which appends no end token."""
    folder = tmp_path_factory.mktemp("reranker")
    state = json.loads(QWEN3.read_text(encoding="utf-8"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    (folder / "tokenizer.json").write_text(json.dumps(state | {"post_processor": byte_level}), encoding="utf-8")
    return write_settings(folder)


def write_settings(folder: Path) -> Path:
    settings = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131_072,
        "pad_token": END_TOKEN,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [*TEXTS.values(), *random_texts(150)]


@functools.cache
def plain_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer as clients load it."""
    file = TokenizerFile.read(folder / "tokenizer.json")
    return load_tokenizer(file, TokenizerIdentity(sha256=hashlib.sha256(file.content).hexdigest(), origin=""))


def listed(rows: TokenRows) -> Rows:
    return [rows.row(index).tolist() for index in range(len(rows.lengths))]


def client_rows(folder: Path, prompted: Sequence[str], max_tokens: int) -> Rows:
    rows = RowTokenizer(tokenizer=plain_tokenizer(folder), end_token_id=END_ID, max_tokens=max_tokens)
    return listed(rows.tokenize(prompted, check_texts(prompted).describe, truncate=True))


def client_pairs(folder: Path, pairs: Sequence[tuple[str, str]], max_tokens: int) -> Rows:
    queries, documents = zip(*pairs, strict=True)
    bodies = prompt_pairs(PAIR_PROMPTS, queries, documents)
    tokenizer = make_pair_tokenizer(plain_tokenizer(folder), PAIR_PROMPTS.prefix, PAIR_PROMPTS.suffix, max_tokens)
    return listed(tokenizer.tokenize(bodies, check_texts(documents).describe, lambda _: "", truncate=True))


@functools.cache
def card_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, padding_side="left")


def card_rows(folder: Path, prompted: Sequence[str], max_tokens: int) -> Rows:
    """Return the rows of the recipe of Qwen3-Embedding's model card, without the padding on their left."""
    rows = []
    for start in range(0, len(prompted), 8):
        some = list(prompted[start : start + 8])
        batch = card_tokenizer(folder)(some, padding=True, truncation=True, max_length=max_tokens, return_tensors="np")
        rows += [ids[mask == 1].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    return rows


def differing(texts: Sequence[Any], ours: Rows, theirs: Rows) -> list[Any]:
    return [text for text, one, other in zip(texts, ours, theirs, strict=True) if one != other]


@pytest.mark.parametrize("max_tokens", [2, 24, 8192])
def test_documents(embedding_folder: Path, texts: list[str], max_tokens: int) -> None:
    ours = client_rows(embedding_folder, prompt_documents(PROMPTS, texts), max_tokens)
    assert differing(texts, ours, card_rows(embedding_folder, texts, max_tokens)) == []
    lengths = [len(row) for row in ours]
    assert max(lengths) == max_tokens


@pytest.mark.parametrize("max_tokens", [48, 8192])
def test_queries(embedding_folder: Path, texts: list[str], max_tokens: int) -> None:
    prompted = [f"Instruct: {INSTRUCTION}\nQuery:{text}" for text in texts]
    ours = client_rows(embedding_folder, prompt_queries(PROMPTS, texts), max_tokens)
    assert differing(texts, ours, card_rows(embedding_folder, prompted, max_tokens)) == []


@pytest.mark.parametrize("max_tokens", [120, 8192])
def test_pairs(reranker_folder: Path, texts: list[str], max_tokens: int) -> None:
    pairs = list(zip(texts, [*texts[7:], *texts[:7]], strict=True))
    ours = client_pairs(reranker_folder, pairs, max_tokens)
    assert differing(pairs, ours, official_rows(reranker_folder, pairs, max_tokens)) == []
    assert max(map(len, ours)) == max_tokens


def test_a_text_that_ends_in_the_end_token_is_ended_once(embedding_folder: Path) -> None:
    """transformers appends the token in any case; a doubled end token is another position to pool."""
    texts, limit = list(ENDED.values()), 20
    doubled = card_rows(embedding_folder, texts, limit)
    assert all(row[-2:] == [END_ID, END_ID] for row in doubled)
    for ours, theirs in zip(client_rows(embedding_folder, texts, limit), doubled, strict=True):
        while theirs and theirs[-1] == END_ID:
            theirs.pop()
        assert ours == [*theirs, END_ID]


def test_the_exporter_verifies_with_the_same_rows(
    embedding_folder: Path, reranker_folder: Path, texts: list[str]
) -> None:
    texts = [text for text in texts if len(text) < 1000]
    tokenizer = read_tokenizer(embedding_folder, VOCABULARY)
    assert tokenizer.end_token_id == END_ID
    assert differing(texts, client_rows(embedding_folder, texts, 24), tokenizer.rows(texts, 24)) == []
    bodies = prompt_pairs(PAIR_PROMPTS, texts, texts)
    rows = read_tokenizer(reranker_folder, VOCABULARY).pair_rows(PAIR_PROMPTS, bodies, 120)
    assert differing(texts, client_pairs(reranker_folder, list(zip(texts, texts, strict=True)), 120), rows) == []


def test_normal_forms_of_a_text_have_the_same_row(embedding_folder: Path) -> None:
    texts = [TEXTS[name] for name in ("composed", "decomposed", "Hangul in letters", "singletons and exclusions")]
    assert unicodedata.normalize("NFC", texts[1]) == texts[0]
    rows = [client_rows(embedding_folder, [unicodedata.normalize(form, text) for text in texts], 99) for form in FORMS]
    assert rows[0] == rows[1]


def test_special_tokens_in_a_text_are_the_tokens(embedding_folder: Path) -> None:
    """As in the recipe; documented in docs/client.md."""
    [row] = client_rows(embedding_folder, ["a<|im_end|>b<think>"], 99)
    assert {151_645, 151_667} <= set(row)


def test_a_lone_surrogate_is_refused(embedding_folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"texts\[1\] contains a lone surrogate U\+D83D at character 2"):
        client_rows(embedding_folder, ["a", "ok\ud83d"], 99)
