"""The modules that sentence-transformers would run, as `modules.json` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...client.manifest.input_files import read_json_file
from ..errors import SourceError
from .setting_files import SettingFiles

MODULES_FILE = "modules.json"
TRANSFORMER = "Transformer"


@dataclass(frozen=True, slots=True)
class Module:
    """One module of `modules.json`: the last part of its type, and its folder."""

    kind: str
    directory: Path


def read_modules(files: SettingFiles) -> list[Module]:
    """Return the modules that apply; none if there is no `modules.json`."""
    listing = files.find(MODULES_FILE)
    return [] if listing is None else _parse(listing)


def find_transformer(root: Path) -> Path:
    """Return the folder of config, weights and tokenizer below `root`: a subfolder if modules.json says so."""
    listing = root / MODULES_FILE
    if not listing.exists() or (root / "config.json").exists() or (root / "adapter_config.json").exists():
        return root
    found = [module.directory for module in _parse(listing) if module.kind == TRANSFORMER]
    return found[0] if found and found[0].is_dir() else root


def _parse(listing: Path) -> list[Module]:
    try:
        modules = read_json_file(listing)
        parsed = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"{listing}: not a list of sentence-transformers modules ({exc!r})") from exc
    for _, path in parsed:
        if not (listing.parent / path).resolve().is_relative_to(listing.parent.resolve()):
            raise SourceError(f"{listing}: the module path {path!r} is outside of the folder")
    return [Module(kind, listing.parent / path) for kind, path in parsed]
