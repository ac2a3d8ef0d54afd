"""What bounds a batch on the server: the token budget, Triton's batching strategy library, and the graph's inputs."""
