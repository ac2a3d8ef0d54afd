"""A real Triton Inference Server on this machine, installed from wheels, without Docker.

```python
with start_triton(Path("model_repository")) as server:
    client = EmbeddingClient(server.grpc_url, model="demo", repository="model_repository")
```
"""

from .addresses import Addresses
from .environment import ServerEnvironment, ensure_environment
from .errors import (
    EmptyRepositoryError,
    EnvironmentInstallError,
    InvalidAddressError,
    InvalidModelNameError,
    LocalServerError,
    ModelFilesError,
    ModelLoadError,
    PortInUseError,
    ServerExitedError,
    ServerNotReadyError,
    TlsFilesError,
)
from .options import ModelControl, ServerOptions
from .tls import TlsFiles
from .triton import TritonServer, start_triton

__all__ = [
    "Addresses",
    "EmptyRepositoryError",
    "EnvironmentInstallError",
    "InvalidAddressError",
    "InvalidModelNameError",
    "LocalServerError",
    "ModelControl",
    "ModelFilesError",
    "ModelLoadError",
    "PortInUseError",
    "ServerEnvironment",
    "ServerExitedError",
    "ServerNotReadyError",
    "ServerOptions",
    "TlsFiles",
    "TlsFilesError",
    "TritonServer",
    "ensure_environment",
    "start_triton",
]
