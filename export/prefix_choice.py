"""Which prefixes an export stores, and their record."""

from __future__ import annotations

from ..client.manifest import Device, PrefixRecord
from .errors import ExportError
from .graph.prefixes import NO_PREFIXES, OWN_TOKENS, StoredPrefixes, longest_prefix, store_prefixes
from .model_sources import ModelSources
from .options import ExportOptions

MIN_TOKENS = 4
"""A shorter prefix is not worth its bookkeeping."""


def choose_prefixes(sources: ModelSources, options: ExportOptions) -> StoredPrefixes:
    """Return the prefixes that rows of the model's prompts begin with; none if its graph cannot reuse them.

    Keys and values of a prefix depend on what follows if attention is bidirectional, and mean pooling needs the final
    states of all tokens.
    """
    checkpoint = sources.checkpoint
    reusable = options.device is Device.CPU and checkpoint.config.causal
    if not (options.prefix_reuse and reusable) or checkpoint.head.pooling.reads_every_token:
        return NO_PREFIXES
    longest = min(sources.max_tokens - OWN_TOKENS, longest_prefix(checkpoint.config))
    found = [*sources.task.prefixes(options.further_instructions), *options.prefixes]
    unknown = {token for ids in options.prefixes for token in ids if not 0 <= token < checkpoint.config.vocabulary}
    if unknown:
        raise ExportError(
            f"prefixes: id {min(unknown)} is not in the vocabulary of {checkpoint.config.vocabulary} ids; use the ids "
            "of the model's tokenizer"
        )
    return store_prefixes(ids[:longest] for ids in found if len(ids[:longest]) >= MIN_TOKENS)


def record_prefixes(stored: StoredPrefixes, sources: ModelSources) -> tuple[PrefixRecord, ...]:
    """Return the prefixes as the manifest names them."""
    decode = sources.tokenizer.plain.decode
    return tuple(
        PrefixRecord(text=decode(list(prefix.ids), skip_special_tokens=False), tokens=len(prefix.ids))
        for prefix in stored.prefixes
    )
