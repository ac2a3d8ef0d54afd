"""docs/checkpoint-settings.md has the rules that the exporter enforces."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_tables_are_those_of_the_rules(project_root: Path) -> None:
    spec = importlib.util.spec_from_file_location("settings_tables", project_root / "docs" / "settings_tables.py")
    assert spec is not None
    assert spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    page = tables.PAGE.read_text(encoding="utf-8")
    assert "`init_lora_weights`" in page
    assert tables.fill(page) == page, "run: python docs/settings_tables.py"
