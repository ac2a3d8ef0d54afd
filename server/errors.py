"""Exceptions of the local server.

ServerError
├── EnvironmentFailed    the server's own Python environment cannot be installed on this machine
├── RepositoryEmpty      the repository does not exist or has no model
├── AddressInvalid       the server cannot listen on a host or port
│   └── PortTaken        another process already listens on the port
├── ModelFailed          Triton runs, but a model did not load; has the cause of each
├── ServerDied           the process exited unexpectedly; has the end of its log
└── ServerNotReady       the process runs, but was not ready within `ready_timeout_s`
"""

from __future__ import annotations

from collections.abc import Mapping


class ServerError(Exception):
    """Base class of all exceptions of the local server; the message is one line that says what to do."""


class EnvironmentFailed(ServerError):
    """The server's environment could not be installed."""


class RepositoryEmpty(ServerError):
    """No model repository at the path, or one without a model."""


class AddressInvalid(ServerError):
    """The host is not one of this machine, or the port may not be used."""


class PortTaken(AddressInvalid):
    """Another process listens on the port."""

    def __init__(self, message: str, *, port: int) -> None:
        super().__init__(message)
        self.port = port


class ModelFailed(ServerError):
    """At least one model of the repository did not load."""

    def __init__(self, message: str, *, causes: Mapping[str, str]) -> None:
        super().__init__(message)
        self.causes = dict(causes)
        """Model name → one line of cause."""


class _WithLog(ServerError):
    def __init__(self, message: str, *, log_tail: str) -> None:
        super().__init__(message)
        self.log_tail = log_tail
        """Last lines of Triton's log."""


class ServerDied(_WithLog):
    """`tritonserver` exited unexpectedly."""


class ServerNotReady(_WithLog):
    """`tritonserver` runs, but some model was still loading when time was up."""
