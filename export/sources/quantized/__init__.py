"""Checkpoints whose weights are quantized: which forms are known, and how they are dequantized."""
