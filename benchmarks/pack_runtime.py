"""Pack an onnxruntime-gpu wheel for a GPU machine without a network, in parts of limited size."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from .device_code import (
    EntryKind,
    InvalidDeviceCodeError,
    clear_payloads,
    differs_elsewhere,
    find_containers,
    select_architecture,
)

CHECKSUMS = "SHA256SUMS"
_LEFT_OUT = "libonnxruntime_providers_tensorrt.so"
_WHEEL_NAME = re.compile(r"([\w.]+-[\w.+]+)-\S+\.whl", re.ASCII)
_MB = 10**6
_CHUNK_BYTES = 2**20


class PackError(Exception):
    """The wheel cannot be packed; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """What to pack and how."""

    part_bytes: int
    architecture: int | None = None
    """Compute capability whose device code is kept, such as 90; None keeps all."""


def pack_wheel(wheel: Path, output: Path, options: PackOptions, log: Callable[[str], None]) -> list[str]:
    """Write `wheel` into the folder `output` as parts of a tar archive, with their checksums.

    Returns:
        The shell lines that check, assemble and unpack the parts, to be run in a copy of `output`.

    Raises:
        PackError: if `wheel` is not a usable wheel, `output` is not empty or a tool is missing.
    """
    if not wheel.is_file():
        raise PackError(f"no such wheel: {wheel}")
    named = _WHEEL_NAME.fullmatch(wheel.name)
    if named is None:
        raise PackError(f"{wheel} is not named like a wheel (NAME-VERSION-TAGS.whl)")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise PackError(f"{output} is not an empty folder: remove it or choose another one")
    if missing := [tool for tool in ("tar", "xz") if shutil.which(tool) is None]:
        raise PackError(f"{' and '.join(missing)} not found: install GNU tar and xz-utils")
    output.mkdir(parents=True, exist_ok=True)
    name = named[1]
    with tempfile.TemporaryDirectory(dir=output) as scratch:
        tree, archive = Path(scratch, "tree"), Path(scratch, f"{name}.tar.xz")
        unpack_wheel(wheel, tree)
        if options.architecture is not None:
            keep_architecture(tree, options.architecture, log)
        _compress(tree, archive)
        _require_same_files(tree, archive)
        parts = _split(archive, output, options.part_bytes)
        if _sha256(*parts) != _sha256(archive):
            raise PackError("the parts were not written correctly")
    sums = "".join(f"{_sha256(part)}  {part.name}\n" for part in parts)
    (output / CHECKSUMS).write_text(sums, encoding="ascii")
    for part in parts:
        log(f"{part.name}: {part.stat().st_size / _MB:.1f} MB")
    return assemble_lines([part.name for part in parts], archive.name, name)


def unpack_wheel(wheel: Path, tree: Path) -> None:
    """Unpack `wheel` into the folder `tree`, without the TensorRT library.

    Raises:
        PackError: if it is not a wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if not any(name.endswith(".dist-info/WHEEL") for name in names):
                raise PackError(f"{wheel} is not a wheel: it has no .dist-info/WHEEL")
            archive.extractall(tree, [name for name in names if Path(name).name != _LEFT_OUT])
    except zipfile.BadZipFile as exc:
        raise PackError(f"{wheel} is not a wheel: {exc}") from exc


def keep_architecture(tree: Path, architecture: int, log: Callable[[str], None]) -> None:
    """Clear the device code for other GPUs in every library of the folder `tree`, and check what was written.

    Raises:
        PackError: if no library has device code for `architecture`, or its layout is unknown.
    """
    found: set[int] = set()
    for file in sorted(tree.rglob("*.so*")):
        original = file.read_bytes()
        try:
            containers = find_containers(original)
        except InvalidDeviceCodeError as exc:
            raise PackError(f"{file.relative_to(tree)}: {exc}") from exc
        found.update(entry.architecture for entry in chain.from_iterable(containers) if entry.kind is EntryKind.CUBIN)
        selection = select_architecture(containers, architecture)
        if not selection.cleared:
            continue
        library = bytearray(original)
        clear_payloads(library, selection.cleared)
        file.write_bytes(library)
        written = file.read_bytes()
        if find_containers(written) != containers or differs_elsewhere(original, written, selection.cleared):
            raise PackError(f"{file.relative_to(tree)} was not written correctly")
        kept, cleared = (
            f"{len(entries)} entries of {sum(entry.end - entry.start for entry in entries) / _MB:.1f} MB"
            for entries in (selection.kept, selection.cleared)
        )
        log(f"{file.name}: kept {kept}, cleared {cleared}, in {len(containers)} containers")
    if architecture not in found:
        known = ", ".join(map(str, sorted(found))) or "none"
        raise PackError(f"no device code for architecture {architecture}: the wheel's architectures are {known}")


def assemble_lines(parts: Sequence[str], archive: str, folder: str) -> list[str]:
    """Return the shell lines that turn `parts` into `folder`, which then comes first on PYTHONPATH."""
    return [
        f"sha256sum --check {CHECKSUMS} &&",
        f"cat {' '.join(parts)} > {archive} &&",
        f"python3 -m tarfile --extract {archive} {folder} &&",
        f'export PYTHONPATH="$PWD/{folder}${{PYTHONPATH:+:$PYTHONPATH}}"',
    ]


def _compress(tree: Path, archive: Path) -> None:
    with archive.open("wb") as file:
        tar = ["tar", "--create", "--sort=name", "--owner=0", "--group=0", "--directory", str(tree), "."]
        done = subprocess.run([*tar, "--use-compress-program=xz -6 -T0"], stdout=file, stderr=subprocess.PIPE)
    if done.returncode:
        raise PackError(f"tar failed: {done.stderr.decode(errors='replace').strip()}")


def _split(archive: Path, folder: Path, part_bytes: int) -> list[Path]:
    parts: list[Path] = []
    with archive.open("rb") as file:
        while data := file.read(part_bytes):
            part = folder / f"{archive.name}.part-{len(parts):02}"
            part.write_bytes(data)
            parts.append(part)
    return parts


def _require_same_files(tree: Path, archive: Path) -> None:
    """Read the whole archive and compare every file in it with the one in `tree`."""
    expected = {file.relative_to(tree).as_posix(): file for file in tree.rglob("*") if file.is_file()}
    with tarfile.open(archive, "r|xz") as packed:
        for member in packed:
            content = packed.extractfile(member)
            if content is not None and content.read() != expected.pop(member.name.removeprefix("./")).read_bytes():
                raise PackError(f"{member.name} was not packed correctly")
    if expected:
        raise PackError(f"{min(expected)} is missing in the archive")


def _sha256(*files: Path) -> str:
    """Return the SHA-256 of the files' joined contents."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            while chunk := data.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def main(
    wheel: Annotated[Path, typer.Argument(help="An onnxruntime-gpu wheel.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT_FOLDER", help="Folder for the parts; new or empty.")],
    part_mb: Annotated[int, typer.Option(min=1, help="Size of a part in MB.")] = 36,
    gpu_architecture: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Keep the device code for this compute capability only, such as 90 for an H100; by default all.",
        ),
    ] = None,
) -> None:
    """Pack an onnxruntime-gpu wheel for a GPU machine without a network, in parts of limited size.

    Prints the shell lines that unpack the parts on that machine, which needs sha256sum and Python.
    """
    options = PackOptions(part_bytes=part_mb * _MB, architecture=gpu_architecture)
    try:
        lines = pack_wheel(wheel, output, options, lambda line: typer.echo(line, err=True))
    except (PackError, OSError) as exc:
        typer.echo(f"cannot pack the wheel: {exc}", err=True)
        raise typer.Exit(1) from exc
    typer.echo("\n".join(lines))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app(prog_name="python -m benchmarks.pack_runtime")
