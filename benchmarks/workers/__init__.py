"""Programs under test, each in its own process and virtual environment.

Workers import only numpy, the program under test and the modules of `benchmarks` that need nothing else: `batches`,
`environment`, `memory`, `processor` and `rows`.
"""
