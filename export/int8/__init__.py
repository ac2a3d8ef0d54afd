"""Int8 quantization for CPUs: calibration, smoothing, choice of fp32 layers, and error reports."""
