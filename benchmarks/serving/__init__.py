"""The exported models behind a real Triton, under load."""
