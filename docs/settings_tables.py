"""Write the tables of docs/checkpoint-settings.md from the exporter's rules: `python docs/settings_tables.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from qwen3_triton.export.sources.adapter_forms import ADAPTER_FORMS
from qwen3_triton.export.sources.quantized.forms import QUANTIZED_FORMS
from qwen3_triton.export.sources.setting_rules import (
    ADAPTER_RULES,
    CONFIG_RULES,
    DENSE_RULES,
    FILE_RULES,
    POOLING_RULES,
    Rule,
)

PAGE = Path(__file__).resolve().parent / "checkpoint-settings.md"


def render_files() -> str:
    """Return the table of files."""
    rows = [f"| {_code(rule.name)} | {rule.treatment} |" for rule in FILE_RULES]
    return "\n".join(["| file | what an export does with it |", "|---|---|", *rows])


def render_keys(rules: Iterable[Rule]) -> str:
    """Return the table of the keys of one file."""
    rows = []
    for rule in rules:
        keys = ", ".join(f"`{key}`" for key in rule.keys)
        note = f"{rule.note}; otherwise: {rule.remedy}" if rule.remedy else rule.note
        rows.append(f"| {keys} | {rule.treatment} | {note} |")
    return "\n".join(["| key | treatment | |", "|---|---|---|", *rows])


def render_forms() -> str:
    """Return the table of the forms of adapters."""
    rows = []
    for form in ADAPTER_FORMS:
        keys = ", ".join(key if " " in key else f"`{key}`" for key in form.recognized_by.split(", "))
        methods = f": {', '.join(form.peft_types)}" if form.peft_types else ""
        rows.append(f"| {form.name} | {keys}{methods} | {form.treatment} | {form.note} |")
    return "\n".join(["| form | recognized by | treatment | |", "|---|---|---|---|", *rows])


def render_quantized() -> str:
    """Return the table of the forms of quantized checkpoints."""
    rows = []
    for form in QUANTIZED_FORMS:
        methods = ", ".join(f"`{method}`" for method in form.methods)
        rows.append(f"| {form.name} | {methods} | {form.treatment} | {form.note} |")
    return "\n".join(["| form | `quant_method` | treatment | |", "|---|---|---|---|", *rows])


def fill(page: str) -> str:
    """Return `page` with the tables between their markers."""
    tables = {
        "files": render_files(),
        "config": render_keys(CONFIG_RULES),
        "pooling": render_keys(POOLING_RULES),
        "dense": render_keys(DENSE_RULES),
        "adapter": render_keys(ADAPTER_RULES),
        "forms": render_forms(),
        "quantized": render_quantized(),
    }
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = pattern.subn(lambda found, table=table: f"{found[1]}\n{table}\n\n{found[2]}", page)
        if count != 1:
            raise ValueError(f"{PAGE}: has {count} tables called {name}, must have one")
    return page


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" if "." in name and " " not in name else name for name in names.split(", "))


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
