"""A small trained Qwen3 embedding model: its data, its training, its evaluation and its files."""
