"""Files that an export writes: the graph and its weights, config.pbtxt, a merged checkpoint; all created atomically."""
