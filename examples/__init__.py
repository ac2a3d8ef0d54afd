"""Worked examples that come with the project; never installed."""
