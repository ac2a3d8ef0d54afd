"""Who embeds a workload: each module prepares one program's contenders."""

from .contender import Bench, CannotRun, Contender, Recipe
from .optimum import OPTIMUM
from .ours import OURS
from .torch_reference import TRANSFORMERS

ALL: tuple[Recipe, ...] = (OURS, OPTIMUM, TRANSFORMERS)
QUICK: tuple[Recipe, ...] = (OURS, TRANSFORMERS)

__all__ = ["ALL", "OPTIMUM", "OURS", "QUICK", "TRANSFORMERS", "Bench", "CannotRun", "Contender", "Recipe"]
