"""Workloads, contenders, records and the report; never installed."""

from .checkout import make_importable

# every module may then name what is measured, also in a worker's process
make_importable()
