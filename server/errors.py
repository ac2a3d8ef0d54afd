"""What the local server raises.

ServerError
├── EnvironmentFailed    the server's own Python environment cannot be made on this machine
├── RepositoryEmpty      there is no model to serve at the path given
├── AddressInvalid       a host or port that cannot be listened on, for another reason than being taken
│   └── PortTaken        somebody else listens there already
├── ModelFailed          Triton runs, but a model does not load; carries the cause of each
├── ServerDied           the process ended by itself; carries the end of its log
└── ServerNotReady       it runs, but was not ready within `ready_timeout_s`
"""

from __future__ import annotations

from collections.abc import Mapping


class ServerError(Exception):
    """Root of every error of the local server; the message is one line that says what to do."""


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
    """`tritonserver` ended without being asked to."""


class ServerNotReady(_WithLog):
    """`tritonserver` runs, but some model was still loading when time was up."""
