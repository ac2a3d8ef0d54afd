"""The demo reranker: its data, its start, its training and its figures."""
