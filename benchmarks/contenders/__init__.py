"""Who embeds a workload: each module prepares one program's contenders.

To add one: a module here with a `Recipe`, a worker in `benchmarks.workers` that loads it, and its line in `ALL`.
"""

from .contender import Bench, CannotRun, Contender, Recipe, Setting
from .openvino import OPENVINO
from .optimum import OPTIMUM
from .ours import OURS
from .transformers_model import TRANSFORMERS

ALL: tuple[Recipe, ...] = (*OURS, OPENVINO, *OPTIMUM, *TRANSFORMERS)
QUICK: tuple[Recipe, ...] = (*OURS, *TRANSFORMERS)
GROWING: tuple[Recipe, ...] = OURS

__all__ = [
    "ALL",
    "GROWING",
    "OPENVINO",
    "OPTIMUM",
    "OURS",
    "QUICK",
    "TRANSFORMERS",
    "Bench",
    "CannotRun",
    "Contender",
    "Recipe",
    "Setting",
]
