"""Workloads, contenders, records and the report; never installed."""
