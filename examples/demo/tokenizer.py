"""Training of a byte-level BPE tokenizer with the structure of Qwen3's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

END_TOKEN = "<|endoftext|>"
TURN_END_TOKEN = "<|im_end|>"

# in the order of Qwen3; the first fourteen are special tokens, the others ordinary text that is never split
SPECIAL_TOKENS = (
    END_TOKEN,
    "<|im_start|>",
    TURN_END_TOKEN,
    *(f"<|{kind}_{side}|>" for kind in ("object_ref", "box", "quad", "vision") for side in ("start", "end")),
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocabulary_rows: int) -> Tokenizer:
    """Train a tokenizer with `vocabulary_rows` ids, added tokens last; it appends one end token to every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_rows - len(SPECIAL_TOKENS) - len(PLAIN_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([_added(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([_added(token, special=False) for token in PLAIN_TOKENS])
    tokenizer.post_processor = _append_end_token(end_token_id(tokenizer))
    return tokenizer


def end_token_id(tokenizer: Tokenizer) -> int:
    """Return the id of the token that ends every text and is used for padding."""
    token_id = tokenizer.token_to_id(END_TOKEN)
    if token_id is None:
        raise ValueError(f"the tokenizer has no token {END_TOKEN}: use the tokenizer of the demo checkpoint")
    return token_id


def _added(token: str, *, special: bool) -> AddedToken:
    return AddedToken(token, normalized=False, special=special)


def _append_end_token(end_id: int) -> processors.Sequence:
    return processors.Sequence(
        [
            processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
            processors.TemplateProcessing(
                single=f"$A:0 {END_TOKEN}:0",
                pair=f"$A:0 {END_TOKEN}:0 $B:0 {END_TOKEN}:0",
                special_tokens=[(END_TOKEN, end_id)],
            ),
        ]
    )
