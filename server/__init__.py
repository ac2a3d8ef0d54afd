"""A real Triton on this machine, from wheels and without docker.

with start_triton(Path("model_repository")) as server:
    client = EmbeddingClient(server.grpc_url, model="demo")
"""

from .addresses import Addresses
from .environment import ServerEnvironment, ensure_environment
from .errors import (
    EmptyRepositoryError,
    EnvironmentInstallError,
    InvalidAddressError,
    LocalServerError,
    ModelLoadError,
    PortInUseError,
    ServerExitedError,
    ServerNotReadyError,
)
from .triton import ServerOptions, TritonServer, start_triton

__all__ = [
    "Addresses",
    "EmptyRepositoryError",
    "EnvironmentInstallError",
    "InvalidAddressError",
    "LocalServerError",
    "ModelLoadError",
    "PortInUseError",
    "ServerEnvironment",
    "ServerExitedError",
    "ServerNotReadyError",
    "ServerOptions",
    "TritonServer",
    "ensure_environment",
    "start_triton",
]
