from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from release.interpreters import find_interpreters
from release.wheelhouse import find_wheel, older_pythons_need
from release.wheels import check_content
from tests.release.arm64.comparison import compare

INFO = "cmlr_edge-1.dist-info"
WHOLE = {
    "cmlr_edge/__init__.py": 1,
    f"{INFO}/RECORD": 1,
    f"{INFO}/sboms/cmlr-edge.cdx.json": 1,
    f"{INFO}/licenses/LICENSE": 1,
    f"{INFO}/licenses/licenses/pybind11.txt": 1,
    f"{INFO}/licenses/licenses/llvm.txt": 1,
    f"{INFO}/licenses/licenses/nanodet.txt": 1,
}
GOOD_NAME = Path("cmlr_edge-1-cp312-cp312-manylinux_2_27_aarch64.whl")


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (GOOD_NAME.name, {**WHOLE, "tests/conftest.py": 1}, "only the package"),
        (GOOD_NAME.name.replace("2_27", "2_39"), WHOLE, "glibc 2.28 at most"),
        (GOOD_NAME.name.replace("manylinux_2_27", "linux"), WHOLE, "glibc 2.28 at most"),
        (
            GOOD_NAME.name,
            {name: 1 for name in WHOLE if "pybind11" not in name},
            "lacks .*pybind11.txt",
        ),
        (
            GOOD_NAME.name,
            {name: 1 for name in WHOLE if "nanodet" not in name},
            "lacks .*nanodet.txt",
        ),
    ],
)
def test_a_wheel_with_too_much_or_too_little_is_refused(
    name: str, files: dict[str, int], message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        check_content(Path(name), files)


def test_this_interpreter_is_found_by_its_path_and_a_missing_one_is_named() -> None:
    assert find_interpreters([sys.executable]) == {sys.executable: sys.executable}
    with pytest.raises(SystemExit, match=r"3\.99.*make wheels PYTHONS"):
        find_interpreters(["3.99"])


def test_a_wheel_is_chosen_by_python_and_architecture(tmp_path: Path) -> None:
    (tmp_path / GOOD_NAME).touch()
    assert find_wheel(tmp_path, "3.12", "aarch64") == tmp_path / GOOD_NAME
    for python, architecture in (("3.11", "aarch64"), ("3.12", "x86_64")):
        with pytest.raises(SystemExit, match="make wheels"):
            find_wheel(tmp_path, python, architecture)


def test_what_older_pythons_alone_need_is_fetched_for_them(tmp_path: Path) -> None:
    wheel = tmp_path / GOOD_NAME
    with zipfile.ZipFile(wheel, "w") as archive:
        lines = ["Requires-Dist: numpy>=1.24", "Requires-Dist: tomli>=2; python_version < '3.11'"]
        archive.writestr(f"{INFO}/METADATA", "\n".join(lines))
    assert older_pythons_need(wheel, "3.10") == ["tomli>=2"]
    assert older_pythons_need(wheel, "3.12") == []


def write_scores(path: Path, scores: list[tuple[float, float]]) -> Path:
    rows = [f"{index},{a},{b}" for index, (a, b) in enumerate(scores)]
    path.write_text("\n".join(["frame,cat,dog", *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("second", "differ", "near", "equal"),
    [
        ([(0.7, 0.1), (0.5004, 0.2)], 0, 0, True),
        ([(0.7, 0.1), (0.4996, 0.2)], 1, 1, True),  # 0.0004 from the threshold
        ([(0.4, 0.1), (0.5004, 0.2)], 1, 0, False),
    ],
)
def test_decisions_may_differ_near_a_threshold_only(
    tmp_path: Path, second: list[tuple[float, float]], differ: int, near: int, equal: bool
) -> None:
    first = write_scores(tmp_path / "a.csv", [(0.7, 0.1), (0.5004, 0.2)])
    other = write_scores(tmp_path / "b.csv", second)
    found = compare(first, other, {"cat": 0.5, "dog": 0.3})
    assert found["decisions"] == 4
    assert found["decisions_at_or_above_threshold"] == 2
    assert found["decisions_that_differ"] == differ
    assert found["of_them_near_a_threshold"] == near
    assert found["equal"] is equal
