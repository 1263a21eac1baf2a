"""Outputs and sources of other people's packages that are not what they should be: one line each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import sys
class Whole:
    name, num_frames, fps, files = "mine", None, 5.0, ()
    def __init__(self, asked): pass
    def write(self, result): pass
    def close(self): pass
class Takes(Whole):
    takes = "everything"
def raising(asked): raise ZeroDivisionError("nobody\\nthought of that")
def leaving(asked): sys.exit("I go")
def nothing(asked): return None
def no_parameters(): pass
"""
_OBJECTS = (
    ["odd_package:raising", "ZeroDivisionError: nobody thought of that"],
    ["odd_package:leaving", "SystemExit: I go"],
    ["odd_package:nothing", "returned cannot be used"],
    ["odd_package:no_parameters", "TypeError"],
    ["odd_package:missing", "AttributeError"],
    ["no_such_package:opener", "ModuleNotFoundError"],
)


def environment(folder: Path, value: str) -> dict[str, str]:
    information = folder / "odd_package-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "odd_package.py").write_text(_CODE)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        f"[cmlr_edge.sinks]\nmine = {value}\n[cmlr_edge.sources]\nmine = {value}\n"
    )
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize(("value", "said"), [*_OBJECTS, ("odd_package:Takes", "takes is")])
def test_an_odd_output_is_one_line(engine: Path, tmp_path: Path, value: str, said: str) -> None:
    arguments = ["--sink", f"mine={tmp_path / 'o'}", "test://?frames=3"]
    check(tmp_path, engine, value, said, arguments)


@pytest.mark.parametrize(("value", "said"), [*_OBJECTS, ("odd_package:Whole", "no __iter__")])
def test_an_odd_source_is_one_line(engine: Path, tmp_path: Path, value: str, said: str) -> None:
    check(tmp_path, engine, value, said, ["mine://place"])


def check(folder: Path, engine: Path, value: str, said: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cmlr_edge", "label", "--engine", str(engine), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(folder / "packages", value),
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: cannot open")
    assert done.stderr.count("\n") == 1
