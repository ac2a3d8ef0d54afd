"""A few minutes' look at the graphs for GPUs: accuracy, operators that round badly, stalls on new shapes, variants."""

from .checks import FirstLookOptions, look_first
from .results import FirstLook, render_first_look

__all__ = ["FirstLook", "FirstLookOptions", "look_first", "render_first_look"]
