"""What is compiled for tests is compiled anew when, and only when, something of it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.csrc.emulation import stored_objects
from tests.csrc.emulation.stored_objects import compile_stored, stored


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_objects, "STORE", tmp_path / "store")


def test_a_file_is_made_once_for_the_same_and_anew_for_another_source(tmp_path: Path) -> None:
    made: list[str] = []

    def make_from(text: str) -> Path:
        def make(path: Path) -> None:
            made.append(text)
            path.write_text(text)

        return stored(tmp_path / "out", ["flags", text], make)

    for text in ("a", "b", "a"):
        assert make_from(text).read_text() == text
    assert made == ["a", "b"]


def test_what_failed_is_not_kept(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        stored(tmp_path / "out", ["x"], fail)
    assert stored(tmp_path / "out", ["x"], lambda path: path.write_text("whole")).read_text() == (
        "whole"
    )


@pytest.mark.parametrize(
    ("name", "header", "flag", "same"),
    [
        ("moved", "int f() { return 1; }  // a comment", "-O0", True),
        ("changed", "int f() { return 2; }", "-O0", False),
        ("other flags", "int f() { return 1; }", "-O1", False),
    ],
)
def test_a_change_in_a_header_or_a_flag_makes_another_object(
    tmp_path: Path, name: str, header: str, flag: str, same: bool
) -> None:
    def build(folder: Path, header: str, flag: str) -> None:
        folder.mkdir()
        (folder / "f.h").write_text(header)
        (folder / "f.cpp").write_text('#include "f.h"\n')
        compile_stored(["g++", "-Wall", flag], [f"-I{folder}"], folder / "f.cpp", folder / "f.o")

    build(tmp_path / "first", "int f() { return 1; }", "-O0")
    build(tmp_path / name, header, flag)
    kept = [p for p in (tmp_path / "store").iterdir() if not p.name.startswith("lock")]
    assert len(kept) == (1 if same else 2)
