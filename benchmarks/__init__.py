"""Workloads, contenders, records and reports; not part of the installed package."""
