"""A small Qwen3 embedding model and its adapter: training data, training, evaluation and files."""
