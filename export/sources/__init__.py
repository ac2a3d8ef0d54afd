"""Folder or hub → what a checkpoint is: weights, config, tokenizer, companions; adapters too."""
