"""State of the models and reasons of failures, read from Triton's HTTP endpoints and its log."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .addresses import Addresses
from .supervise import FAILURE_PREFIX

_TIMEOUT_S = 5.0
_MESSAGE = re.compile(
    r"^E\d+ .*?\"(?:Poll failed for model directory|failed to load model) '(?P<model>[^']+)': (?P<cause>.*)\"$"
)
_PARSE_ERROR = re.compile(r"^\[libprotobuf ERROR .*?\] (?:Error parsing text-format [\w.]+: )?(?P<cause>.*)$")
_PORT_IN_USE = re.compile(r"Socket '[^']*:(?P<port>\d+)' already in use")
_REJECTED_TLS = re.compile(
    r"ssl_transport_security\.cc:\d+\]\s*(?P<cause>[^\n]+)\n.*Unable to create secure server", re.DOTALL
)
_TRACE = re.compile(r"\n+At:\n.*", re.DOTALL)
_ERROR_KIND = re.compile(r"^(?:Internal|Invalid argument|Unavailable|Not found): (?:TritonModelException: )?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStates:
    """Result of loading the models. Triton responds only after it has tried to load every model."""

    ready: tuple[str, ...]
    """Names of the loaded models, sorted."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Triton's reason for each model that failed, by name; empty if the index has none."""


def fetch_states(addresses: Addresses) -> ModelStates | None:
    """Fetch the state of every model in Triton's index; None while an endpoint does not accept connections yet."""
    host = addresses.reachable_http_host
    if _fetch(host, addresses.metrics_port, "GET", "/metrics") is None:
        return None
    index = _fetch(host, addresses.http_port, "POST", "/v2/repository/index")
    return None if index is None else read_index(index)


def read_index(index: bytes) -> ModelStates:
    """Parse the response of `/v2/repository/index`; a model has failed if one of its versions has."""
    entries = json.loads(index)
    failed = {entry["name"]: entry.get("reason", "") for entry in entries if entry.get("state") != "READY"}
    return ModelStates(ready=tuple(sorted({entry["name"] for entry in entries} - failed.keys())), failed=failed)


def find_causes(states: ModelStates, expected: Collection[str], log: str) -> dict[str, str]:
    """Return one line with the cause for each model that did not load.

    Args:
        states: States from Triton's index.
        expected: Names of the models in the repository, because the index omits models without a version.
        log: Triton's log, for causes that the index does not contain.
    """
    logged = _logged_causes(log)
    missing = (states.failed.keys() | set(expected)) - set(states.ready)
    return {
        name: one_line(states.failed.get(name, "")) or logged.get(name, "Triton gives no reason; see its log")
        for name in sorted(missing)
    }


def one_line(reason: str) -> str:
    """Remove error kind, Python traceback and line breaks from Triton's reason."""
    return " ".join(_ERROR_KIND.sub("", _TRACE.sub("", reason)).split())


def find_port_in_use(log: str) -> int | None:
    """Return the port that Triton could not bind, or None if that is not why it exited."""
    found = _PORT_IN_USE.search(log)
    return int(found["port"]) if found else None


def find_rejected_tls(log: str) -> str | None:
    """Return why Triton could not use its TLS files, which it also reports as a port in use; None if it could."""
    found = _REJECTED_TLS.search(log)
    return found["cause"].rstrip(".") if found else None


def find_failure(log: str) -> str | None:
    """Return why the supervisor has killed Triton, or None if it has not."""
    found = [line.removeprefix(FAILURE_PREFIX) for line in log.splitlines() if line.startswith(FAILURE_PREFIX)]
    return found[-1] if found else None


def _logged_causes(log: str) -> dict[str, str]:
    causes: dict[str, str] = {}
    parse_error = ""
    for line in log.splitlines():
        if found := _PARSE_ERROR.match(line):
            parse_error = found["cause"]
        elif found := _MESSAGE.match(line):
            # the parser logs the details on the line before
            causes[found["model"]] = one_line(f"{found['cause']}{': ' if parse_error else ''}{parse_error}")
            parse_error = ""
    return causes


def _fetch(host: str, port: int, method: str, path: str) -> bytes | None:
    """Return the body of a successful response, None otherwise. Ignores proxy settings."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if response.status == http.HTTPStatus.OK else None
