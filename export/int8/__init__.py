"""Int8 quantisation for CPUs: calibration, smoothing, choice of fp32 layers, and error reports."""
