"""The demo reranker: training data, initialization, training and evaluation."""
