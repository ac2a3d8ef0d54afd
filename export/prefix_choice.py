"""Which prefixes an export stores, and their record."""

from __future__ import annotations

from ..client.manifest import PrefixRecord
from .errors import ExportError
from .graph.prefixes import OWN_TOKENS, StoredPrefixes, store_prefixes
from .graph.summation import longest_prefix
from .model_sources import ModelSources
from .options import ExportOptions

MIN_TOKENS = 4
"""A shorter prefix is not worth its bookkeeping."""


def choose_prefixes(sources: ModelSources, options: ExportOptions) -> StoredPrefixes:
    """Return the prefixes that rows of the model's prompts begin with.

    Raises:
        ExportError: `options.prefixes` has an id that is not in the vocabulary.
    """
    checkpoint = sources.checkpoint
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
