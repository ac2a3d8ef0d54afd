"""What a starting Triton says of its models, from its HTTP endpoint and its log."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .addresses import Addresses

_TIMEOUT_S = 5.0
_MESSAGE = re.compile(
    r"^E\d+ .*?\"(?:Poll failed for model directory|failed to load model) '(?P<model>[^']+)': (?P<cause>.*)\"$"
)
_PARSE_ERROR = re.compile(r"^\[libprotobuf ERROR .*?\] (?:Error parsing text-format [\w.]+: )?(?P<cause>.*)$")
_PORT_IN_USE = re.compile(r"Socket '[^']*:(?P<port>\d+)' already in use")
_TRACE = re.compile(r"\n+At:\n.*", re.DOTALL)
_ERROR_KIND = re.compile(r"^(?:Internal|Invalid argument|Unavailable|Not found): (?:TritonModelException: )?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStates:
    """How loading went: Triton answers only when it has tried every model."""

    ready: tuple[str, ...]
    """Names, sorted."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Name → Triton's reason, empty where its index gives none."""


def ask_states(addresses: Addresses) -> ModelStates | None:
    """The state of every model in Triton's index, or None while one of its endpoints is still closed."""
    host = addresses.reachable_host
    if _fetch(host, addresses.metrics_port, "GET", "/metrics") is None:
        return None
    index = _fetch(host, addresses.http_port, "POST", "/v2/repository/index")
    return None if index is None else read_index(index)


def read_index(index: bytes) -> ModelStates:
    """The states in the answer of `/v2/repository/index`; one version that failed fails its model."""
    entries = json.loads(index)
    failed = {entry["name"]: entry.get("reason", "") for entry in entries if entry.get("state") != "READY"}
    return ModelStates(ready=tuple(sorted({entry["name"] for entry in entries} - failed.keys())), failed=failed)


def find_causes(states: ModelStates, expected: Collection[str], log: str) -> dict[str, str]:
    """One line of cause for each model that did not load, from the index, or from the log where it is silent.

    `expected` are the names in the repository: Triton's index leaves out a model without a version.
    """
    logged = _logged_causes(log)
    missing = (states.failed.keys() | set(expected)) - set(states.ready)
    return {
        name: one_line(states.failed.get(name, "")) or logged.get(name, "no reason given, see the log")
        for name in sorted(missing)
    }


def one_line(reason: str) -> str:
    """Triton's reason without the kind of error, the Python trace and line ends."""
    return " ".join(_ERROR_KIND.sub("", _TRACE.sub("", reason)).split())


def find_port_in_use(log: str) -> int | None:
    """The port that Triton could not bind, where that is why it ended."""
    found = _PORT_IN_USE.search(log)
    return int(found["port"]) if found else None


def _logged_causes(log: str) -> dict[str, str]:
    causes: dict[str, str] = {}
    parse_error = ""
    for line in log.splitlines():
        if found := _PARSE_ERROR.match(line):
            parse_error = found["cause"]
        elif found := _MESSAGE.match(line):
            # the parser's own words stand on the line before
            causes[found["model"]] = one_line(f"{found['cause']}{': ' if parse_error else ''}{parse_error}")
            parse_error = ""
    return causes


def _fetch(host: str, port: int, method: str, path: str) -> bytes | None:
    """The body of a successful answer; None while nobody answers. Knows no proxies."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == http.HTTPStatus.OK else None
