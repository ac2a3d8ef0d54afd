"""Who answers a workload: each module prepares one program's contenders.

To add one: a module here with a `Recipe`, a worker in `benchmarks.workers` that loads it, and its line in `ALL`.
"""

import onnxruntime

from qwen3_triton.export import RuntimeVersion

from .contender import Bench, CannotRun, Contender, Recipe, Setting
from .cuda_graph import cuda_recipes
from .llama_cpp import LLAMA_CPP, LLAMA_CPP_RERANKER
from .openvino import OPENVINO, OPENVINO_RERANKER
from .optimum import OPTIMUM, OPTIMUM_RERANKERS
from .ours import OUR_FAST, OUR_RERANKERS, OURS
from .sentence_transformers import CROSS_ENCODERS, SENTENCE_TRANSFORMERS
from .transformers_model import BF16, COMPILED, TRANSFORMERS
from .transformers_reranker import TRANSFORMERS_RERANKERS

RERANKERS: tuple[Recipe, ...] = (
    *OUR_RERANKERS,
    OPENVINO_RERANKER,
    *OPTIMUM_RERANKERS,
    LLAMA_CPP_RERANKER,
    *CROSS_ENCODERS,
    *TRANSFORMERS_RERANKERS,
)
PEERS: tuple[Recipe, ...] = (OPENVINO, *OPTIMUM, LLAMA_CPP, *SENTENCE_TRANSFORMERS, *TRANSFORMERS, COMPILED)
ALL: tuple[Recipe, ...] = (*OURS, *PEERS, *RERANKERS)
QUICK: tuple[Recipe, ...] = (*OURS, *TRANSFORMERS, OUR_RERANKERS[0])
"""Of the rerankers one: every program takes seconds to load."""
GROWING: tuple[Recipe, ...] = OUR_FAST


def on_gpus(runtime: RuntimeVersion, *, compiled: bool) -> tuple[Recipe, ...]:
    """What runs on a GPU, our graphs with operators of `runtime`; `compiled` has torch.compile take part."""
    peers = [recipe for recipe in TRANSFORMERS if recipe.program == BF16]
    return (*cuda_recipes(runtime), *peers, *([COMPILED] if compiled else []))


def installed_runtime() -> RuntimeVersion:
    """Of ONNX Runtime here."""
    return RuntimeVersion.parse(onnxruntime.__version__)


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
    "installed_runtime",
    "on_gpus",
]
