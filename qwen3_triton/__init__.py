"""LoRA-tuned Qwen3-Embedding and Qwen3-Reranker checkpoints on Triton Inference Server.

The sub-packages are the folders `client`, `export`, `server` and `cli` at the root of the repository.
"""

__version__ = "0.1.0"
