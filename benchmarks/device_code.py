"""CUDA device code inside a shared library: a chain of fat binaries, one entry for each GPU architecture.

    section .nv_fatbin = container, container, ...
    container          = header, entry, entry, ...
    entry              = header, payload (PTX or a cubin, compressed and padded to 8 bytes)

NVIDIA does not document the layout. Everything is checked on the way: containers and entries must fill the section
exactly, and values that are not known are errors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

_SECTION = b".nv_fatbin"
_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_CONTAINER = struct.Struct("<IHHQ")
"""Magic number, version, header size, size of all entries."""
_CONTAINER_MAGIC = 0xBA55ED50
_CONTAINER_VERSION = 1
_ENTRY = struct.Struct("<HHIQIIIIQQQQ")
"""Kind, version, header size, padded payload size, payload size, ..., architecture at byte 28, ..."""
_ENTRY_VERSION = 0x101

Buffer = bytes | bytearray | memoryview


class InvalidDeviceCodeError(Exception):
    """A library's device code has an unknown layout; the message says where."""


class EntryKind(IntEnum):
    """What the payload of an entry is."""

    PTX = 1
    CUBIN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One payload; positions are bytes from the start of the library."""

    kind: EntryKind
    architecture: int
    """Compute capability, such as 90; the suffix of `90a` is not part of it."""
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The entries of a library that one architecture uses, and those it does not."""

    kept: tuple[Entry, ...]
    cleared: tuple[Entry, ...]


def find_containers(library: Buffer) -> list[tuple[Entry, ...]]:
    """Return the entries of each container in `library`; none if it is no ELF file or has no device code.

    Raises:
        InvalidDeviceCodeError: if a container or entry does not have the expected layout.
    """
    section = _find_section(library)
    if section is None:
        return []
    position, end = section
    containers = []
    while position < end:
        magic, version, header_size, size = _unpack(_CONTAINER, library, position, end)
        if magic != _CONTAINER_MAGIC or version != _CONTAINER_VERSION or header_size < _CONTAINER.size:
            raise InvalidDeviceCodeError(f"no known container of device code at byte {position}")
        start, position = position + header_size, position + header_size + size
        if position > end:
            raise InvalidDeviceCodeError(f"the container that ends at byte {position} exceeds its section")
        containers.append(tuple(_entries(library, start, position)))
    return containers


def select_architecture(containers: Sequence[Sequence[Entry]], architecture: int) -> Selection:
    """Select the entries that a GPU of `architecture` loads.

    A container with a cubin for exactly this architecture keeps its cubins for it and nothing else; other containers
    keep everything.
    """
    kept: list[Entry] = []
    cleared: list[Entry] = []
    for entries in containers:
        wanted = [entry.kind is EntryKind.CUBIN and entry.architecture == architecture for entry in entries]
        for entry, is_wanted in zip(entries, wanted, strict=True):
            (kept if is_wanted or not any(wanted) else cleared).append(entry)
    return Selection(kept=tuple(kept), cleared=tuple(cleared))


def clear_payloads(library: bytearray, entries: Sequence[Entry]) -> None:
    """Overwrite the payloads of `entries` with zeros. Headers, sizes and positions do not change."""
    for entry in entries:
        library[entry.start : entry.end] = bytes(entry.end - entry.start)


def differs_elsewhere(original: Buffer, cleared: Buffer, entries: Sequence[Entry]) -> bool:
    """Return whether `cleared` differs from `original` in more than zeros in the payloads of `entries`."""
    before, after, position = memoryview(original), memoryview(cleared), 0
    if len(before) != len(after):
        return True
    for entry in sorted(entries, key=lambda entry: entry.start):
        if before[position : entry.start] != after[position : entry.start]:
            return True
        if after[entry.start : entry.end] != bytes(entry.end - entry.start):
            return True
        position = entry.end
    return before[position:] != after[position:]


def _entries(library: Buffer, position: int, end: int) -> Iterator[Entry]:
    while position < end:
        kind, version, header_size, padded, _, _, _, architecture, *_ = _unpack(_ENTRY, library, position, end)
        if version != _ENTRY_VERSION or header_size < _ENTRY.size or kind not in tuple(EntryKind):
            raise InvalidDeviceCodeError(f"no known entry of device code at byte {position}")
        start, position = position + header_size, position + header_size + padded
        if position > end:
            raise InvalidDeviceCodeError(f"the entry that ends at byte {position} exceeds its container")
        yield Entry(kind=EntryKind(kind), architecture=architecture, start=start, end=position)


def _find_section(library: Buffer) -> tuple[int, int] | None:
    """Return the first byte of the section of device code and the one past its end."""
    if bytes(library[: len(_ELF64_LITTLE_ENDIAN)]) != _ELF64_LITTLE_ENDIAN:
        return None
    try:
        (table,) = struct.unpack_from("<Q", library, 0x28)
        size, count, names_index = struct.unpack_from("<HHH", library, 0x3A)
        sections = [_SECTION_HEADER.unpack_from(library, table + index * size) for index in range(count)]
    except struct.error as exc:
        raise InvalidDeviceCodeError(f"the table of sections is incomplete: {exc}") from exc
    if names_index >= count:
        return None
    names = sections[names_index][4]
    for name, _, _, _, start, length, *_ in sections:
        at = names + name
        if bytes(library[at : at + len(_SECTION) + 1]) == _SECTION + b"\0":
            if start + length > len(library):
                raise InvalidDeviceCodeError("the section of device code exceeds the file")
            return start, start + length
    return None


def _unpack(layout: struct.Struct, library: Buffer, position: int, end: int) -> tuple[int, ...]:
    if position + layout.size > end:
        raise InvalidDeviceCodeError(f"the device code ends in the middle of a header at byte {position}")
    return layout.unpack_from(library, position)
