"""`qwen3-triton inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..client.errors import ManifestError
from ..client.manifest import EmbeddingManifest, ExportRecord, ModelFolder, PairPrompts, Prompts
from ..client.manifest.integrity import find_changed_files
from .reports import show_reports

_SHORT_HASH = 12


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="NAME_OR_FOLDER", help="Name of a model in the repository, or its folder.")
    ],
    repository: Annotated[Path, typer.Option(help="Triton model repository.")] = Path("model_repository"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the manifest and the result of the file check as JSON.")
    ] = False,
) -> None:
    """Describe an exported model, and compare its files with the hashes in its manifest. Fails if a file differs."""
    folder = _find_folder(model, repository)
    text = folder.read_manifest()
    record = ExportRecord.from_json(text)
    changed = find_changed_files(folder, record)
    if as_json:
        typer.echo(json.dumps({"manifest": json.loads(text), "changed_files": changed}, ensure_ascii=False, indent=2))
    else:
        _show(folder, record)
    if changed:
        raise ManifestError(
            f"{folder.path}: {'; '.join(changed)} since the export: restore the files, or export the model again"
        )


def _find_folder(model: str, repository: Path) -> ModelFolder:
    candidates = [repository / model, Path(model)]
    for candidate in candidates:
        folder = ModelFolder(candidate)
        if folder.manifest.exists():
            return folder
    tried = " and ".join(str(ModelFolder(candidate).manifest) for candidate in candidates)
    raise ManifestError(
        f"no exported model {model!r}: {tried} do not exist; give its name and --repository, or its folder"
    )


def _show(folder: ModelFolder, record: ExportRecord) -> None:
    manifest = record.manifest
    typer.echo(
        f"{folder.path} ({_describe_versions(folder, manifest.model_version)}): {manifest.task} model, "
        f"{manifest.precision} for {record.device}"
    )
    _line("output", _describe_output(record))
    if record.recipe is not None:
        attention = "causal" if record.recipe.causal else "bidirectional"
        _line("computes", ", ".join([f"{attention} attention", record.recipe.pooling, *record.recipe.modules]))
    _line("input", f"rows of up to {manifest.max_tokens:,} tokens, ids 0 to {manifest.vocabulary_size - 1:,}")
    if isinstance(manifest, EmbeddingManifest):
        _line("end token", "none" if manifest.end_token_id is None else str(manifest.end_token_id))
    for name, text in _describe_prompts(manifest.prompts).items():
        _line(name, repr(text))
    for prefix in record.prefixes:
        _line("prefix", f"{prefix.tokens} stored tokens, {prefix.text!r}")
    _line("tokenizer", f"{manifest.tokenizer.origin} ({manifest.tokenizer.sha256[:_SHORT_HASH]})")
    _line("checkpoint", f"{record.checkpoint.reference} ({record.checkpoint.sha256[:_SHORT_HASH]})")
    for adapter in record.adapters:
        _line("adapter", f"{adapter.reference} x {adapter.weight:g} ({adapter.sha256[:_SHORT_HASH]})")
    for name, origin in record.origins.items():
        _line("read from" if name == next(iter(record.origins)) else "", f"{name}: {origin}")
    if record.triton_release is not None:
        _line("image", f"nvcr.io/nvidia/tritonserver:{record.triton_release}-py3")
    provenance = record.provenance
    if provenance is None:
        _line("exported", "by an older version, which recorded neither its version nor file hashes")
    else:
        packages = ", ".join(f"{name} {version}" for name, version in provenance.packages.items())
        _line("exported", f"{provenance.created} by qwen3-triton {provenance.tool_version} ({packages})")
        _line("files", f"{len(provenance.files)} checked against their hashes")
    show_reports(record)


def _describe_versions(folder: ModelFolder, used: int | None) -> str:
    others = ", ".join(str(version) for version in folder.versions() if version != used)
    if used is None:
        return f"version {others or 'none'}"
    return f"version {used}; also has {others}" if others else f"version {used}"


def _describe_output(record: ExportRecord) -> str:
    manifest = record.manifest
    if isinstance(manifest, EmbeddingManifest):
        dimensions = f"{manifest.min_dimension} to {manifest.dimension} components"
        return ", ".join(
            [f"{manifest.task.output}, {dimensions}", *(compact.name for compact in manifest.compact_outputs)]
        )
    return f"{manifest.task.output} from 0 to 1"


def _describe_prompts(prompts: Prompts | PairPrompts) -> dict[str, str]:
    if isinstance(prompts, Prompts):
        texts = {"query": prompts.query, "document": prompts.document}
    else:
        texts = {"prefix": prompts.prefix, "body": prompts.body, "suffix": prompts.suffix}
    if prompts.default_instruction is not None:
        texts["instruction"] = prompts.default_instruction
    return texts


def _line(name: str, text: str) -> None:
    typer.echo(f"  {name:<12}{text}")
