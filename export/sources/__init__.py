"""Inputs of an export: checkpoints with config, tokenizer and settings, adapters, and retrieval sets."""
