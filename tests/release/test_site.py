"""The site builds, every link on it leads somewhere, and nothing public lacks a word on what it is."""

from __future__ import annotations

import inspect
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer

import cmlr_edge
from cmlr_edge.cli.app import app as sdk_app
from cmlr_edge.session.config import toml_reader
from release.site import reference, stage

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]

pytestmark = pytest.mark.slow


class _Links(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets, self.ids = list[str](), set[str]()
        self.feed(page.read_text())

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.targets += [value for key in ("href", "src") if (value := given.get(key))]
        self.ids |= {value for key in ("id", "name") if (value := given.get(key))}


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="the site needs zensical")
    from release.site.__main__ import build_site

    folder = tmp_path_factory.mktemp("site")
    assert build_site(folder) == 0
    return folder / "html"


def test_every_link_of_the_built_site_leads_somewhere(html: Path) -> None:
    pages = {path: _Links(path) for path in html.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 25
    broken = [
        (str(page.relative_to(html)), target)
        for page, links in pages.items()
        for target in links.targets
        if not re.match(r"[a-z]+:|//", target) and not _leads_somewhere(page, target, pages)
    ]
    assert broken == []
    assert "from_engine" in (html / "reference/python/index.html").read_text()


def _leads_somewhere(page: Path, target: str, pages: dict[Path, _Links]) -> bool:
    path, _, anchor = target.partition("#")
    place = (page.parent / path.partition("?")[0]).resolve() if path else page
    place = place / "index.html" if place.is_dir() else place
    return place.is_file() and (not anchor or place not in pages or anchor in pages[place].ids)


def test_no_button_for_the_contents_lies_over_the_text_of_a_phone(html: Path) -> None:
    pages = [page for page in html.rglob("*.html") if page.name != "404.html"]
    assert [page for page in pages if "md-sidebar--primary" not in page.read_text()] == []
    assert [page for page in pages if "md-sidebar-button" in page.read_text()] == []


def test_nothing_is_fetched_from_elsewhere_when_a_page_is_read(html: Path) -> None:
    for page in html.rglob("*.html"):
        tags = re.findall(
            r"<(?:script|img|link)[^>]+(?:src|href)=\"(https?:[^\"]+)", page.read_text()
        )
        assert [url for url in tags if "canonical" not in url] == []


def test_a_link_that_leads_nowhere_stops_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text("[gone](nowhere.md)")
    monkeypatch.setattr(stage, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"page\.md links to nowhere\.md"):
        stage._linked_files(tmp_path / "page.md")


def test_every_public_name_says_what_it_is() -> None:
    bare = []
    for name in cmlr_edge.__all__:
        item = getattr(cmlr_edge, name)
        if not (inspect.getdoc(item) or "").strip():
            bare.append(name)
        if inspect.isclass(item):
            methods = inspect.getmembers(
                item, lambda value: callable(value) or isinstance(value, property)
            )
            own = [key for key, _ in methods if not key.startswith("_") and key in vars(item)]
            bare += [f"{name}.{key}" for key in own if not inspect.getdoc(getattr(item, key))]
    assert bare == []


def test_every_field_and_every_setting_says_what_it_is() -> None:
    text = "\n".join(reference.reference_pages().values())
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 200
    assert [row for row in rows if re.search(r"\|\s*\|$", row) or "``" in row] == []


def _commands() -> dict[str, Any]:
    from train.cli.app import app as train_app

    return {
        "cmlr-edge": typer.main.get_command(sdk_app),
        "python -m train": typer.main.get_command(train_app),
    }


def _command_lines(page: Path) -> list[tuple[str, str]]:
    """Each line of a block that starts with one of our commands, and the rest of it."""
    text = page.read_text().replace("\\\n", " ")
    return re.findall(r"^(?: {4}|)(cmlr-edge|python -m train) (\S.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    commands = _commands()
    for program, line in _command_lines(page):
        words = shlex.split(line.partition(" #")[0].partition(" | ")[0])
        command = commands[program]
        while hasattr(command, "commands") and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if words and "--help" not in words:  # `archive photos` means `archive label photos`
            command = getattr(command, "commands", {}).get("label", command)
        known = {option for item in command.params for option in [*item.opts, *item.secondary_opts]}
        known |= {"--help"}
        unknown = [
            word for word in words if word.startswith("--") and word.partition("=")[0] not in known
        ]
        assert not hasattr(command, "commands") or not words or words[0].startswith("-"), line
        assert unknown == [], line


def test_every_page_is_found_from_the_others() -> None:
    settings = (ROOT / "release/site/zensical.toml").read_text()
    assert [page.name for page in PAGES[1:] if f"{page.relative_to(ROOT)}" not in settings] == []


def test_the_pages_have_commands() -> None:
    assert sum(len(_command_lines(page)) for page in PAGES) > 60


def test_the_comparison_counts_what_is_there() -> None:
    page = (ROOT / "docs/comparison.md").read_text()
    programs = len([*(ROOT / "examples").glob("*.py")])
    notebooks = len([*(ROOT / "examples").glob("*.ipynb")])
    assert f"[{programs} programs and {notebooks} notebooks]" in page
    needed = toml_reader().loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    always = [line for line in needed if "python_version" not in line]
    assert len(always) == 3  # NumPy and the two of the command line
    assert "NumPy and the two of the command line" in page
