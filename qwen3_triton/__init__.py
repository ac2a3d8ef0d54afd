"""LoRA-tuned Qwen3-Embedding and Qwen3-Reranker checkpoints on Triton Inference Server.

The sub-packages are the folders `client`, `export`, `server` and `cli` at the root of the repository.
"""

import logging

# applications choose what is shown; without a handler, Python would write warnings to stderr
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
