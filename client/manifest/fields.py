"""JSON objects as the fields of dataclasses; fields of later versions are ignored."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ..errors import ManifestError


def read_object(text: str, newest_schema: int) -> dict[str, Any]:
    """Return the JSON object in `text`.

    Raises:
        ManifestError: It is not a JSON object with a `schema_version`, or that is newer than `newest_schema`.
    """
    try:
        fields = json.loads(text)
        version = fields["schema_version"]
    except (ValueError, TypeError, KeyError) as exc:
        raise ManifestError(f"not a qwen3-triton manifest: {exc}") from exc
    if type(version) is not int or version > newest_schema:
        raise ManifestError(
            f"the model has manifest schema {version}, this client reads up to {newest_schema}: upgrade qwen3-triton"
        )
    return dict(fields)


def known_fields(kind: type[Any], value: object) -> dict[str, Any]:
    """Return the entries of `value` that are fields of the dataclass `kind`; raise TypeError unless it is an object."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: entry for name, entry in as_object(value).items() if name in names}


def as_object(value: object) -> dict[str, Any]:
    """Return `value`, which must be a JSON object; raise TypeError otherwise."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def as_list(fields: Mapping[str, Any], name: str) -> list[Any]:
    """Return the field `name`, which must be a JSON array; raise TypeError otherwise."""
    value = fields[name]
    if not isinstance(value, list):
        raise TypeError(f"{name} is {value!r}, not a list")
    return value


def require_integers(fields: Mapping[str, Any], *names: str) -> None:
    """Raise TypeError where one of the fields `names` is present and not a whole number."""
    for name in names:
        if name in fields and type(fields[name]) is not int:
            raise TypeError(f"{name} is {fields[name]!r}, not a whole number")
