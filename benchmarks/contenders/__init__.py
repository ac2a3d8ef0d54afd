"""Who answers a workload: each module prepares one program's contenders.

To add one: a module here with a `Recipe`, a worker in `benchmarks.workers` that loads it, and its line in `ALL`.
"""

from .contender import Bench, CannotRun, Contender, Recipe, Setting
from .llama_cpp import LLAMA_CPP
from .openvino import OPENVINO, OPENVINO_RERANKER
from .optimum import OPTIMUM, OPTIMUM_RERANKERS
from .ours import OUR_RERANKERS, OURS
from .sentence_transformers import SENTENCE_TRANSFORMERS
from .transformers_model import COMPILED, TRANSFORMERS
from .transformers_reranker import TRANSFORMERS_RERANKERS

RERANKERS: tuple[Recipe, ...] = (*OUR_RERANKERS, OPENVINO_RERANKER, *OPTIMUM_RERANKERS, *TRANSFORMERS_RERANKERS)
PEERS: tuple[Recipe, ...] = (OPENVINO, *OPTIMUM, LLAMA_CPP, *SENTENCE_TRANSFORMERS, *TRANSFORMERS, COMPILED)
ALL: tuple[Recipe, ...] = (*OURS, *PEERS, *RERANKERS)
QUICK: tuple[Recipe, ...] = (*OURS, *TRANSFORMERS, OUR_RERANKERS[0])
"""Of the rerankers one: every program takes seconds to load."""
GROWING: tuple[Recipe, ...] = OURS

__all__ = [
    "ALL",
    "GROWING",
    "OPENVINO",
    "OPTIMUM",
    "OURS",
    "PEERS",
    "QUICK",
    "RERANKERS",
    "TRANSFORMERS",
    "Bench",
    "CannotRun",
    "Contender",
    "Recipe",
    "Setting",
]
