"""Exceptions of the local server.

LocalServerError
├── EnvironmentInstallError  the server's Python environment cannot be installed on this machine
├── EmptyRepositoryError     the model repository does not exist or has no models
├── InvalidAddressError      the server cannot listen on the host or port
│   └── PortInUseError       another process listens on the port
├── InvalidModelNameError    the server cannot load a model with such a name
├── ModelFilesError          files of a model differ from the hashes in its manifest; has the differences
├── ModelLoadError           at least one model did not load; has the cause for each
├── ServerExitedError        the process exited unexpectedly; has the end of its log
├── ServerNotReadyError      the models were not loaded within `ready_timeout_s`; has the end of the log
└── TlsFilesError            a file for TLS cannot be read or used
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class LocalServerError(Exception):
    """Base class of all exceptions of the local server. The message is one line and says what to do."""

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option
        """Field of `ServerOptions` that the message suggests to change, or None."""


class EnvironmentInstallError(LocalServerError):
    """The server's Python environment could not be installed."""


class EmptyRepositoryError(LocalServerError):
    """The model repository does not exist, or has no models."""


class InvalidAddressError(LocalServerError):
    """The host does not belong to this machine, or the port cannot be used."""


class PortInUseError(InvalidAddressError):
    """Another process listens on the port."""

    def __init__(self, message: str, *, port: int, option: str) -> None:
        super().__init__(message, option=option)
        self.port = port
        """The port in use."""


class InvalidModelNameError(LocalServerError):
    """The name of a model has characters that the local server cannot process."""


class ModelFilesError(LocalServerError):
    """The files of at least one model differ from the hashes in its manifest, or it has no hashes."""

    def __init__(self, message: str, *, differences: Mapping[str, Sequence[str]]) -> None:
        super().__init__(message, option="verify_files")
        self.differences = dict(differences)
        """Lines of text with the differences, by model name."""


class ModelLoadError(LocalServerError):
    """At least one model in the repository did not load."""

    def __init__(self, message: str, *, causes: Mapping[str, str]) -> None:
        super().__init__(message)
        self.causes = dict(causes)
        """One line with the cause for each model that did not load, by model name."""


class TlsFilesError(LocalServerError):
    """A file for TLS is missing, unreadable or invalid, or the files do not belong together."""


class _LogTailError(LocalServerError):
    def __init__(self, message: str, *, log_tail: str, option: str | None = None) -> None:
        super().__init__(message, option=option)
        self.log_tail = log_tail
        """Last lines of Triton's log."""


class ServerExitedError(_LogTailError):
    """`tritonserver` exited unexpectedly."""


class ServerNotReadyError(_LogTailError):
    """At least one model was not loaded within `ready_timeout_s`."""
