"""Limits of a batch on the server: token budget, batching strategy library, and the inputs of the graph."""
