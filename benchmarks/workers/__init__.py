"""Programs under test, each in a process of its own and in its own environment.

Beside numpy and the program they need `benchmarks.rows`, `benchmarks.batches` and nothing else of this project.
"""
