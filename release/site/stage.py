"""The folder that the site is built from: the repository's own pages at their places, so that their links hold."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from release.site.reference import reference_pages

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
_PAGES = (
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "examples/README.md",
)


def stage(folder: Path) -> None:
    """Write into `folder` every page, what they link to, and the reference made from the code.

    Raises:
        FileNotFoundError: A page links to what is no file; the message names both.
    """
    shutil.rmtree(folder, ignore_errors=True)
    waiting = [*(ROOT / page for page in _PAGES), *sorted(ROOT.glob("docs/*.md"))]
    done = set[Path]()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        place = folder / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        if path.suffix == ".md":
            waiting += _linked_files(path)
    for name, text in reference_pages().items():
        place = folder / "reference" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    _make_index(folder)


def _linked_files(page: Path) -> list[Path]:
    files = list[Path]()
    for target in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"{page.relative_to(ROOT)} links to {target}, which is no file")
        files.append(path)
    return files


def _make_index(folder: Path) -> None:
    """Make README.md the first page; links to it follow."""
    (folder / "README.md").rename(folder / "index.md")
    for page in folder.rglob("*.md"):
        text = page.read_text()
        moved = re.sub(r"(\]\((?:\.\./)*)README\.md", r"\1index.md", text)
        if moved != text and page.parent != folder / "examples":
            page.write_text(moved)
