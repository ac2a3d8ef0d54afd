"""File names of the plots, without suffix."""

from __future__ import annotations

from .record import ScalingVariable

PEERS = "throughput_by_peer"
LATENCY = "throughput_against_latency"
CLIENTS = "throughput_against_clients"
QUALITY = "quality_against_bytes"


def scaling(variable: ScalingVariable) -> str:
    """Return the name of the plot of time against `variable`."""
    return f"scaling_{'_'.join(variable.label.lower().split())}"
