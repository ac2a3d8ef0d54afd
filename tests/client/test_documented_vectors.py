"""The examples of "Smaller vectors" in docs/client.md run, and find the documents that float32 finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3_triton.client import EmbeddingClient

TEXTS = [f"document {number}" for number in range(300)]


def test_examples_run_in_order(
    client: EmbeddingClient, project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (project_root / "docs" / "client.md").read_text(encoding="utf-8")
    [section] = re.findall(r"\n## Smaller vectors\n(.*?)\n## ", page, re.DOTALL)
    store, search, rescore = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"client": client, "texts": TEXTS, "sample": TEXTS[::2]}
    exec(store, names)
    exec(search, names)
    exact = names["queries"] @ client.embed_documents(TEXTS).T
    np.testing.assert_allclose(names["scores"], exact, atol=0.02)
    assert exact[0, names["best"][0, 0]] > exact.max() - 0.02
    exec(rescore, names)
    assert len(names["best"]) == 10
    assert exact[0, names["best"][0]].min() > np.sort(exact[0])[-20]
