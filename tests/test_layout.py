"""The tests lie as the product does, and no test file imports another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def test_no_test_file_is_imported() -> None:
    """Imported, its fixtures and cases would be run, or renamed, for others: share a module."""
    imported = re.compile(r"(?:from|import) tests\.[\w.]*\btest_\w+|from tests[\w.]* import test_")
    files = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert len(files) > 100
    found = [(str(path), *imported.findall(path.read_text())) for path in files]
    assert [row for row in found if len(row) > 1] == []


@pytest.mark.parametrize("package", ["cmlr_edge", "train"])
def test_the_folders_of_the_tests_are_those_of_the_package(package: str) -> None:
    homes = {path.parent.relative_to(TESTS) for path in (TESTS / package).rglob("test_*.py")}
    assert len(homes) > 5
    assert [home for home in homes if not list((ROOT / home).glob("*.py"))] == []


def test_two_installs_of_one_checkout_share_no_folder_of_their_build() -> None:
    """scikit-build-core clears CMake's cache for each new environment of pip, also under a build that runs."""
    packaging = (ROOT / "pyproject.toml").read_text()
    assert "[tool.scikit-build]" in packaging
    assert not re.search(r"^build-dir\b", packaging, re.MULTILINE)


def test_the_way_of_a_frame_passes_as_many_files_as_its_page_says() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = re.search(r"## The way of a frame.*?\n## ", page, re.DOTALL)
    assert section is not None
    steps, around = section.group().split("Around it:")
    named = re.findall(r"`([\w/]+\.py)`", steps)
    assert len(set(named)) == len(named)
    found = {path.relative_to(ROOT / "cmlr_edge") for path in (ROOT / "cmlr_edge").rglob("*.py")}
    assert [name for name in named if not any(p.match(name) for p in found)] == []
    gpu = "backends/cuda_frames.py"
    said = re.search(r"passes the (\d+) files", around)
    assert said is not None
    assert int(said.group(1)) == len([name for name in named if name != gpu]) <= 25


def test_training_and_export_start_without_what_few_of_their_steps_need() -> None:
    """Scikit-learn, with SciPy and pandas, takes seconds to import, in each of a training's processes."""
    heavy = re.compile(r"^(?:from|import) (?:sklearn|scipy|pandas|matplotlib)\b.*", re.MULTILINE)
    files = [path for package in ("train", "export") for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 50
    assert [found for path in files for found in heavy.findall(path.read_text())] == []
