"""The programs that are compared; each module prepares the contenders of one program.

To add a program, write a module here with a `Recipe` and a worker in `benchmarks.workers` that loads it, and add the
recipe to `ALL`.
"""

import onnxruntime

from qwen3_triton.export import CudaAttention, RuntimeVersion

from .contender import Contender, ContenderUnavailableError, Recipe, RunContext, Setting
from .cuda_graph import cuda_recipes
from .llama_cpp import LLAMA_CPP, LLAMA_CPP_RERANKERS
from .openvino import OPENVINO, OPENVINO_RERANKERS
from .optimum import OPTIMUM, OPTIMUM_RERANKERS
from .ours import OUR_FAST_CPU, OUR_RERANKERS, OURS, WITHOUT_REUSE
from .sentence_transformers import CROSS_ENCODERS, SENTENCE_TRANSFORMERS
from .transformers_model import COMPILED, GPU_COMPILED, GPU_TRANSFORMERS, TRANSFORMERS
from .transformers_reranker import TRANSFORMERS_RERANKERS

RERANKERS: tuple[Recipe, ...] = (
    *OUR_RERANKERS,
    *OPENVINO_RERANKERS,
    *OPTIMUM_RERANKERS,
    *LLAMA_CPP_RERANKERS,
    *CROSS_ENCODERS,
    *TRANSFORMERS_RERANKERS,
)
PEERS: tuple[Recipe, ...] = (
    *OPENVINO,
    *OPTIMUM,
    *LLAMA_CPP,
    *SENTENCE_TRANSFORMERS,
    *TRANSFORMERS,
    *COMPILED,
)
ALL: tuple[Recipe, ...] = (*OURS, *WITHOUT_REUSE, *PEERS, *RERANKERS)
QUICK: tuple[Recipe, ...] = (*OURS, *TRANSFORMERS, OUR_RERANKERS[0])
"""Recipes of a quick run; only one reranker, because every program takes seconds to load."""
SCALING: tuple[Recipe, ...] = OUR_FAST_CPU


def gpu_recipes(runtime: RuntimeVersion, *, compiled: bool) -> tuple[Recipe, ...]:
    """Return the recipes for GPUs, the most important ones first.

    Args:
        runtime: version of ONNX Runtime whose operators this project's graphs may use.
        compiled: whether to include transformers with torch.compile.
    """
    graphs = cuda_recipes(runtime)
    fp16, others = graphs[: len(CudaAttention)], graphs[len(CudaAttention) :]
    return (*fp16, *GPU_TRANSFORMERS, *others, *(GPU_COMPILED if compiled else ()))


def installed_runtime() -> RuntimeVersion:
    """Return the version of the installed ONNX Runtime."""
    return RuntimeVersion.parse(onnxruntime.__version__)


__all__ = [
    "ALL",
    "OPENVINO",
    "OPTIMUM",
    "OURS",
    "PEERS",
    "QUICK",
    "RERANKERS",
    "SCALING",
    "TRANSFORMERS",
    "Contender",
    "ContenderUnavailableError",
    "Recipe",
    "RunContext",
    "Setting",
    "gpu_recipes",
    "installed_runtime",
]
