"""Reading of dataclass fields from JSON objects; unknown fields are ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import ManifestError
from .input_files import parse_json


def read_object(text: str, newest_schema: int) -> dict[str, Any]:
    """Parse a JSON object that has a `schema_version`.

    Raises:
        ManifestError: `text` is not such an object, or its version is newer than `newest_schema`.
    """
    try:
        fields = parse_json(text)
        version = fields["schema_version"]
    except (ValueError, TypeError, KeyError) as exc:
        raise ManifestError(f"not a qwen3-triton manifest: {exc}") from exc
    if type(version) is not int or version > newest_schema:
        raise ManifestError(
            f"the model has manifest schema {version}, but this code supports up to {newest_schema}: "
            "upgrade qwen3-triton"
        )
    return dict(fields)


def known_fields(kind: type[Any], value: object) -> dict[str, Any]:
    """Return the entries of `value` that the dataclass `kind` has; raise TypeError if `value` is not an object."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: entry for name, entry in as_object(value).items() if name in names}


def as_object(value: object) -> dict[str, Any]:
    """Return `value`; raise TypeError if it is not a JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def as_list(fields: Mapping[str, Any], name: str) -> list[Any]:
    """Return the field `name`; raise TypeError if it is not a JSON array."""
    value = fields[name]
    if not isinstance(value, list):
        raise TypeError(f"{name} is {value!r}, expected an array")
    return value


def require_integers(fields: Mapping[str, Any], *names: str) -> None:
    """Raise TypeError if one of the fields `names` is present and not an integer."""
    for name in names:
        if name in fields and type(fields[name]) is not int:
            raise TypeError(f"{name} is {fields[name]!r}, expected an integer")
