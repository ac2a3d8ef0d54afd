"""Exceptions of the local server.

LocalServerError
├── EnvironmentInstallError    the server's own Python environment cannot be installed on this machine
├── EmptyRepositoryError      the repository does not exist or has no model
├── InvalidAddressError       the server cannot listen on a host or port
│   └── PortInUseError        another process already listens on the port
├── ModelLoadError          Triton runs, but a model did not load; has the cause of each
├── ServerExitedError           the process exited unexpectedly; has the end of its log
└── ServerNotReadyError       the process runs, but was not ready within `ready_timeout_s`
"""

from __future__ import annotations

from collections.abc import Mapping


class LocalServerError(Exception):
    """Base class of all exceptions of the local server; the message is one line that says what to do."""


class EnvironmentInstallError(LocalServerError):
    """The server's environment could not be installed."""


class EmptyRepositoryError(LocalServerError):
    """No model repository at the path, or one without a model."""


class InvalidAddressError(LocalServerError):
    """The host is not one of this machine, or the port may not be used."""


class PortInUseError(InvalidAddressError):
    """Another process listens on the port."""

    def __init__(self, message: str, *, port: int) -> None:
        super().__init__(message)
        self.port = port


class ModelLoadError(LocalServerError):
    """At least one model of the repository did not load."""

    def __init__(self, message: str, *, causes: Mapping[str, str]) -> None:
        super().__init__(message)
        self.causes = dict(causes)
        """Model name → one line of cause."""


class _WithLog(LocalServerError):
    def __init__(self, message: str, *, log_tail: str) -> None:
        super().__init__(message)
        self.log_tail = log_tail
        """Last lines of Triton's log."""


class ServerExitedError(_WithLog):
    """`tritonserver` exited unexpectedly."""


class ServerNotReadyError(_WithLog):
    """`tritonserver` runs, but some model was still loading when time was up."""
