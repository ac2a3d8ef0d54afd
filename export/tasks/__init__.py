"""What differs between the exports of an embedding model and of a reranker."""
