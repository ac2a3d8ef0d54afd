"""Collect the pages of the documentation site in build/docs.

The pages are the Markdown files in this folder and those listed in `ELSEWHERE`. Their links work on GitHub, relative to
each file; on the site some of these files have other places, and others are not part of it. So a link to a page becomes
a link to its place on the site, an image is copied, and a link to any other file of the repository leads to GitHub.
Line numbers stay the same, so that the builder's warnings fit the source.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TARGET = ROOT / "build" / "docs"
REPOSITORY = "https://github.com/qwen3-triton/qwen3-triton/blob/main"
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/results/README.md": "benchmark-records.md",
    "deploy/README.md": "deployment.md",
    "examples/demo/README.md": "demo.md",
}
"""Path in the repository → path on the site."""

_FENCE = re.compile(r"\s*(```|~~~)")
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^()\s#]+)((?:#[^()\s]*)?\))")
_IMAGES = (".svg", ".png")


class BrokenLinkError(Exception):
    """A page links to a file that the repository does not have."""


def site_pages() -> dict[str, str]:
    """Return path in the repository → path on the site, for every page."""
    own = {file.relative_to(ROOT).as_posix(): file.relative_to(DOCS).as_posix() for file in DOCS.rglob("*.md")}
    return own | ELSEWHERE


def collect_pages() -> None:
    """Write every page and image of the site.

    Raises:
        BrokenLinkError: A page links to a file that does not exist.
    """
    shutil.rmtree(TARGET, ignore_errors=True)
    pages = site_pages()
    for source, place in pages.items():
        target = TARGET / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_move_links((ROOT / source).read_text(encoding="utf-8"), source, pages), encoding="utf-8")


def _move_links(text: str, source: str, pages: Mapping[str, str]) -> str:
    lines, fenced = [], False
    for number, line in enumerate(text.split("\n"), start=1):
        fenced ^= _FENCE.match(line) is not None
        move = partial(_move_link, place=f"{source}:{number}", source=source, pages=pages)
        lines.append(line if fenced else _LINK.sub(move, line))
    return "\n".join(lines)


def _move_link(found: re.Match[str], *, place: str, source: str, pages: Mapping[str, str]) -> str:
    before, link, after = found.groups()
    if re.match(r"[a-z]+:", link):
        return found[0]
    linked = os.path.normpath(PurePosixPath(source).parent / link)
    if not (ROOT / linked).exists():
        raise BrokenLinkError(f"{place}: {link} does not exist")
    if linked in pages:
        moved = os.path.relpath(pages[linked], PurePosixPath(pages[source]).parent)
    elif linked.endswith(_IMAGES):
        image = Path("images") / Path(linked).name
        (TARGET / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / linked, TARGET / image)
        moved = os.path.relpath(image, PurePosixPath(pages[source]).parent)
    else:
        moved = f"{REPOSITORY}/{linked}"
    return f"{before}{moved}{after}"


if __name__ == "__main__":
    try:
        collect_pages()
    except BrokenLinkError as exc:
        sys.exit(f"error: {exc}")
