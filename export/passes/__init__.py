"""Passes over weights: the LoRA merge, and function-preserving transformations."""
