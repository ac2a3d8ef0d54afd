"""Weights → weights: adapters merged in, and passes that keep the function."""
