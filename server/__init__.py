"""A real Triton on this machine, from wheels and without docker.

with start_triton(Path("model_repository")) as server:
    client = EmbeddingClient(server.grpc_url, model="demo")
"""

from .addresses import Addresses
from .environment import ServerEnvironment, ensure_environment
from .errors import (
    AddressInvalid,
    EnvironmentFailed,
    ModelFailed,
    PortTaken,
    RepositoryEmpty,
    ServerDied,
    ServerError,
    ServerNotReady,
)
from .triton import ServerOptions, TritonServer, start_triton

__all__ = [
    "AddressInvalid",
    "Addresses",
    "EnvironmentFailed",
    "ModelFailed",
    "PortTaken",
    "RepositoryEmpty",
    "ServerDied",
    "ServerEnvironment",
    "ServerError",
    "ServerNotReady",
    "ServerOptions",
    "TritonServer",
    "ensure_environment",
    "start_triton",
]
