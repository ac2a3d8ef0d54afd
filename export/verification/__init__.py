"""The reference, the written model, and how far they are apart."""
