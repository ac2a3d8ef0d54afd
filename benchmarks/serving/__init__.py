"""Load tests of the exported models, served by a real Triton."""
