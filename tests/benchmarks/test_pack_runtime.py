"""Packing an onnxruntime-gpu wheel in parts: what is kept, what is cleared, and unpacking in a shell."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.device_code import (
    EntryKind,
    InvalidDeviceCodeError,
    clear_payloads,
    differs_elsewhere,
    find_containers,
    select_architecture,
)
from benchmarks.pack_runtime import CHECKSUMS, PackError, PackOptions, pack_wheel

NAME = "onnxruntime_gpu-1.0.0"
LIBRARY = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
TENSORRT = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
NOISE = random.Random(0).randbytes(2_500_000)
needs_tools = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("tar", "xz", "sha256sum", "bash")), reason="a command is missing"
)


@dataclass(frozen=True, slots=True)
class Code:
    """One entry of synthetic device code; the payload is `text` padded to 8 bytes."""

    architecture: int
    text: bytes
    kind: int = EntryKind.CUBIN
    header_size: int = 64


CONTAINERS = (
    (Code(75, b"cubin 75"), Code(90, b"cubin 90"), Code(120, b"cubin120", header_size=112)),
    (Code(80, b"cubin 80 only"), Code(120, b"PTX", kind=EntryKind.PTX)),
    (Code(90, b"cubin 90 again"), Code(90, b"cubin 90a"), Code(90, b"PTX 90", kind=EntryKind.PTX, header_size=80)),
)
CLEARED = (b"cubin 75", b"cubin120", b"PTX 90")
KEPT = (b"cubin 90", b"cubin 80 only", b"PTX\0", b"cubin 90 again", b"cubin 90a")


def container(codes: Sequence[Code]) -> bytes:
    entries = b""
    for code in codes:
        payload = code.text.ljust(-(-len(code.text) // 8) * 8, b"\0")
        header = struct.pack("<HHIQIIII", code.kind, 0x101, code.header_size, len(payload), 0, 0, 0, code.architecture)
        entries += header.ljust(code.header_size, b"\xaa") + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def library(device_code: bytes, section: bytes = b".nv_fatbin") -> bytes:
    """Return a 64-bit ELF file: header, names of sections, device code, text, table of sections."""
    names = b"\0.shstrtab\0" + section + b"\0"
    code_at = 64 + len(names)
    table_at = code_at + len(device_code) + len(b"machine code")
    sections = ((0, 0, 0), (1, 64, len(names)), (11, code_at, len(device_code)))
    table = b"".join(struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, at, size, 0, 0, 1, 0) for name, at, size in sections)
    header = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<Q", table_at)
    header = header.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, len(sections), 1)
    return header + names + device_code + b"machine code" + table


@pytest.fixture
def original() -> bytes:
    return library(b"".join(map(container, CONTAINERS)))


@pytest.fixture
def wheel(tmp_path: Path, original: bytes) -> Path:
    return write_wheel(tmp_path, original)


def write_wheel(folder: Path, content: bytes) -> Path:
    file = folder / f"{NAME}-cp312-cp312-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{NAME}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("onnxruntime/__init__.py", "version = 'packed'\n")
        archive.writestr("onnxruntime/noise.bin", NOISE)
        archive.writestr("onnxruntime/capi/libother.so", library(b"no device code", b".other_section"))
        archive.writestr(LIBRARY, content)
        archive.writestr(TENSORRT, b"tensorrt")
    return file


def run_script(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.pack_runtime", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def run_lines(lines: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = lines.rstrip() + " &&\npython3 -c 'import onnxruntime; print(onnxruntime.version)'"
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)


@needs_tools
def test_the_printed_lines_unpack_the_parts(wheel: Path, original: bytes, tmp_path: Path, project_root: Path) -> None:
    packed = run_script(wheel, tmp_path / "parts", "--part-mb", "1", "--gpu-architecture", "90", cwd=project_root)
    assert packed.returncode == 0, packed.stderr
    assert "kept 5 entries" in packed.stderr
    assert "cleared 3 entries" in packed.stderr
    parts = sorted((tmp_path / "parts").glob("*.part-*"))
    assert [part.stat().st_size for part in parts[:2]] == [10**6, 10**6]
    assert len(parts) == 3
    assert {file.name for file in (tmp_path / "parts").iterdir()} == {CHECKSUMS, *(part.name for part in parts)}

    there = tmp_path / "another machine"
    (tmp_path / "parts").rename(there)
    done = run_lines(packed.stdout, there)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "packed"
    tree = there / NAME
    assert not (tree / TENSORRT).exists()
    assert (tree / "onnxruntime/noise.bin").read_bytes() == NOISE
    expected = original
    for text in CLEARED:
        expected = expected.replace(text.ljust(8, b"\0"), bytes(8))
    assert (tree / LIBRARY).read_bytes() == expected


@needs_tools
def test_all_device_code_is_kept_by_default(wheel: Path, original: bytes, tmp_path: Path) -> None:
    lines = pack_wheel(wheel, tmp_path / "parts", PackOptions(part_bytes=10**7), lambda _: None)
    assert run_lines("\n".join(lines), tmp_path / "parts").returncode == 0
    assert (tmp_path / "parts" / NAME / LIBRARY).read_bytes() == original


@needs_tools
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_part_is_detected(wheel: Path, tmp_path: Path, damage: str) -> None:
    lines = pack_wheel(wheel, tmp_path / "parts", PackOptions(part_bytes=10**6), lambda _: None)
    part = tmp_path / "parts" / f"{NAME}.tar.xz.part-01"
    if damage == "missing":
        part.unlink()
    else:
        content = part.read_bytes()
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = run_lines("\n".join(lines), tmp_path / "parts")
    assert done.returncode != 0
    assert part.name in done.stdout
    assert not (tmp_path / "parts" / NAME).exists()


def test_only_other_architectures_are_cleared(original: bytes) -> None:
    containers = find_containers(original)
    assert [[(entry.kind, entry.architecture) for entry in entries] for entries in containers] == [
        [(code.kind, code.architecture) for code in codes] for codes in CONTAINERS
    ]
    selection = select_architecture(containers, 90)
    cleared = bytearray(original)
    clear_payloads(cleared, selection.cleared)
    assert len(selection.cleared) == len(CLEARED)
    assert not any(text in cleared for text in CLEARED)
    assert len(selection.kept) == len(KEPT)
    assert all(text in cleared for text in KEPT)
    assert find_containers(cleared) == containers
    assert not differs_elsewhere(original, cleared, selection.cleared)


@pytest.mark.parametrize("position", ["first byte", "kept payload", "cleared payload", "last byte"])
def test_any_other_change_is_noticed(original: bytes, position: str) -> None:
    selection = select_architecture(find_containers(original), 90)
    cleared = bytearray(original)
    clear_payloads(cleared, selection.cleared)
    at = {
        "first byte": 0,
        "kept payload": selection.kept[0].start,
        "cleared payload": selection.cleared[0].end - 1,
        "last byte": len(original) - 1,
    }[position]
    cleared[at] ^= 1
    assert differs_elsewhere(original, cleared, selection.cleared)
    assert differs_elsewhere(original, original[:-1], ())


GOOD = container(CONTAINERS[0])


@pytest.mark.parametrize(
    ("device_code", "message"),
    [
        (GOOD + b"\0" * 16, "no known container"),
        (GOOD + b"\0" * 8, "middle of a header"),
        (b"\1" + GOOD[1:], "no known container"),
        (GOOD[:4] + b"\2" + GOOD[5:], "no known container"),
        (GOOD[:-8], "exceeds its section"),
        (struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(GOOD)) + GOOD[16:] + b"\0" * 16, "middle of a header"),
        (struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(GOOD) - 24) + GOOD[16:-8], "exceeds its container"),
        (GOOD[:16] + b"\7" + GOOD[17:], "no known entry"),
    ],
)
def test_malformed_device_code_is_rejected(device_code: bytes, message: str) -> None:
    with pytest.raises(InvalidDeviceCodeError, match=message):
        find_containers(library(device_code))


def test_an_incomplete_library_is_rejected(original: bytes) -> None:
    with pytest.raises(InvalidDeviceCodeError, match="table of sections"):
        find_containers(original[:-1])


@needs_tools
def test_malformed_device_code_leaves_no_parts(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, library(GOOD[:-8]))
    with pytest.raises(PackError, match=r"libonnxruntime_providers_cuda\.so: .*exceeds its section"):
        pack_wheel(wheel, tmp_path / "parts", PackOptions(part_bytes=10**6, architecture=90), lambda _: None)
    assert not list((tmp_path / "parts").iterdir())


@needs_tools
def test_errors_are_one_line(wheel: Path, tmp_path: Path, project_root: Path) -> None:
    text = tmp_path / "text-1.0-py3-none-any.whl"
    text.write_text("not a zip file")
    archive = tmp_path / "archive-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "a")
    cases: list[tuple[list[str | Path], str]] = [
        ([tmp_path / "none.whl", tmp_path / "parts"], "no such wheel"),
        ([text, tmp_path / "parts"], "is not a wheel: File is not a zip file"),
        ([archive, tmp_path / "parts"], "has no .dist-info/WHEEL"),
        ([wheel.rename(tmp_path / "a b.whl"), tmp_path / "parts"], "is not named like a wheel"),
        ([text, tmp_path], "is not an empty folder"),
        ([text, text], "is not an empty folder"),
    ]
    for arguments, message in cases:
        done = run_script(*arguments, cwd=project_root)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert message in done.stderr


@needs_tools
def test_an_unknown_architecture_is_an_error(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no device code for architecture 89: .* are 75, 80, 90, 120"):
        pack_wheel(wheel, tmp_path / "parts", PackOptions(part_bytes=10**6, architecture=89), lambda _: None)
