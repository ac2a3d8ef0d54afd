"""`qwen3-triton list` and `qwen3-triton rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..client.errors import ManifestError
from ..client.manifest import ExportRecord, ModelFolder

_NO_VALUE = "-"


def list_models(
    repository: Annotated[Path, typer.Argument(help="Triton model repository.")] = Path("model_repository"),
) -> None:
    """List the exported models of a repository and their versions; * marks the version in use."""
    from ..export import UnknownVersionError, version_in_use

    if not repository.is_dir():
        raise UnknownVersionError(f"the model repository {repository} does not exist; give the folder of a repository")
    rows = []
    for path in sorted(entry for entry in repository.iterdir() if entry.is_dir()):
        folder = ModelFolder(path)
        try:
            used = version_in_use(folder)
        except (UnknownVersionError, ManifestError):
            rows.append((path.name, _NO_VALUE, "not a model exported by qwen3-triton", "", ""))
            continue
        rows += [_describe(folder, version, used) for version in folder.versions()]
    if not rows:
        typer.echo(f"{repository} has no models", err=True)
        return
    header = ("NAME", "VERSION", "MODEL", "EXPORTED", "SIZE")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def rollback(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[int, typer.Argument(help="Version to put into use.")],
    repository: Annotated[Path, typer.Option(help="Triton model repository.")] = Path("model_repository"),
) -> None:
    """Put another version of a model into use, an earlier or a later one, with its prompts and tokenizer.

    A server that polls the repository follows by itself; with explicit model control, load the model again.
    """
    from ..export import switch_version

    folder = ModelFolder(repository / name)
    before = switch_version(folder, version)
    if before == version:
        typer.echo(f"{folder.path}: version {version} is in use already")
    else:
        typer.echo(f"{folder.path}: version {version} is in use instead of {before}")


def _describe(folder: ModelFolder, version: int, used: int) -> tuple[str, str, str, str, str]:
    size = sum(file.stat().st_size for file in folder.version(version).path.rglob("*") if file.is_file())
    description = folder if version == used else folder.version(version)
    model, exported = "without a description; it cannot be put into use", _NO_VALUE
    if description.manifest.is_file():
        try:
            record = ExportRecord.from_json(description.read_manifest())
        except ManifestError as exc:
            model = str(exc)
        else:
            model = f"{record.manifest.task} {record.manifest.precision} for {record.device}"
            exported = _NO_VALUE if record.provenance is None else record.provenance.created
    return folder.path.name, f"{version}{'*' if version == used else ''}", model, exported, f"{size / 1e6:.1f} MB"
