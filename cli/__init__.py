"""The `qwen3-triton` command."""
