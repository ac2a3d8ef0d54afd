"""Weight formats: how each precision stores weights and computes with them."""

from .table import FORMATS, weight_format
from .weight_format import Tolerance, WeightFormat

__all__ = ["FORMATS", "Tolerance", "WeightFormat", "weight_format"]
