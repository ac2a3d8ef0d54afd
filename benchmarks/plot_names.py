"""What the plots' files are called, for who draws them and for who shows them."""

from __future__ import annotations

PEERS = "throughput_by_peer"
LATENCY = "throughput_against_latency"
CLIENTS = "throughput_against_clients"
QUALITY = "quality_against_bytes"


def growth(of: str) -> str:
    """Time against the size of `of`."""
    return f"growth_{'_'.join(of.lower().split())}"
