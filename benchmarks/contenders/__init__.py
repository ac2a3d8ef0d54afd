"""Who answers a workload: each module prepares one program's contenders.

To add one: a module here with a `Recipe`, a worker in `benchmarks.workers` that loads it, and its line in `ALL`.
"""

from .contender import Bench, CannotRun, Contender, Recipe, Setting
from .openvino import OPENVINO, OPENVINO_RERANKER
from .optimum import OPTIMUM, OPTIMUM_RERANKERS
from .ours import OUR_RERANKERS, OURS
from .transformers_model import TRANSFORMERS
from .transformers_reranker import TRANSFORMERS_RERANKERS

RERANKERS: tuple[Recipe, ...] = (*OUR_RERANKERS, OPENVINO_RERANKER, *OPTIMUM_RERANKERS, *TRANSFORMERS_RERANKERS)
ALL: tuple[Recipe, ...] = (*OURS, OPENVINO, *OPTIMUM, *TRANSFORMERS, *RERANKERS)
QUICK: tuple[Recipe, ...] = (*OURS, *TRANSFORMERS, *OUR_RERANKERS, *TRANSFORMERS_RERANKERS)
GROWING: tuple[Recipe, ...] = OURS

__all__ = [
    "ALL",
    "GROWING",
    "OPENVINO",
    "OPTIMUM",
    "OURS",
    "QUICK",
    "RERANKERS",
    "TRANSFORMERS",
    "Bench",
    "CannotRun",
    "Contender",
    "Recipe",
    "Setting",
]
