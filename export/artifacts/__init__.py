"""What comes to lie on disk: the graph and its weights, config.pbtxt, a merged checkpoint, each whole or not at all."""
