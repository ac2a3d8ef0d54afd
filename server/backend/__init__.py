"""The Python-based backend `onnxruntime`, as Triton's stub runs it.

Copied as a package of its own into the backend directory, so its modules import each other relatively
and know neither the rest of the project nor anything but numpy and onnxruntime.
"""
