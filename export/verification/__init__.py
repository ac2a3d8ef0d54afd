"""Verification of a written model: the reference, parity, retrieval quality and speed."""
