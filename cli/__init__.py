"""The command `qwen3-triton`."""
