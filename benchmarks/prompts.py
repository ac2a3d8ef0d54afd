"""Token ids of the models' default prompts, which production sends with every query and which prefix caches reuse.

The ids are those of Qwen3's tokenizer; a test compares them with the rows that the client sends.
"""

from __future__ import annotations

from collections.abc import Sequence

QUERY_PREFIX = (
    *(641, 1235, 25, 16246, 264, 3482, 2711, 3239, 11, 17179, 9760, 46769, 429, 4226, 279, 3239, 198, 2859),
    25,
)
"""`Instruct: {default instruction}\\nQuery:`. The first 18 ids are those of every query; the colon is merged with some
characters that are not letters or digits, such as a line break."""
QUERY_PREFIX_TOKENS = 18
"""Ids of QUERY_PREFIX that every query has."""
PAIR_PREFIX = (
    # <|im_start|>system … <|im_start|>user
    *(151644, 8948, 198, 60256, 3425, 279, 11789, 20027, 279, 8502, 3118, 389, 279, 11361, 323, 279, 758, 1235, 3897),
    *(13, 7036, 429, 279, 4226, 646, 1172, 387, 330, 9693, 1, 476, 330, 2152, 3263, 151645, 198, 151644, 872, 198),
    # <Instruct>: {default instruction} <Query>:
    *(27, 641, 1235, 26818, 16246, 264, 3482, 2711, 3239, 11, 17179, 9760, 46769, 429, 4226, 279, 3239, 198),
    *(27, 2859, 26818),
)
"""Of a reranker, up to the query."""
ANY_PAIR_PREFIX_TOKENS = 43
"""Ids of PAIR_PREFIX that a pair with any instruction has."""
PAIR_SEPARATOR = (198, 75692, 26818)
"""Of a reranker, between query and document: `\\n<Document>:`."""
PAIR_SUFFIX = (151645, 198, 151644, 77091, 198, 151667, 271, 151668, 271)
"""Of a reranker, after the document."""


def fit_vocabulary(ids: Sequence[int], vocabulary: int) -> list[int]:
    """Return `ids` of a prompt for a model with `vocabulary` ids, without id 0; a smaller one gets other ids."""
    return [1 + (id_ - 1) % (vocabulary - 1) for id_ in ids]
