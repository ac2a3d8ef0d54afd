"""Python-based `onnxruntime` backend, run by the stubs of Triton's Python backend.

It is copied into the backend directory as a separate package, so its modules use relative imports and depend only on
numpy and onnxruntime, not on the rest of the project.
"""
