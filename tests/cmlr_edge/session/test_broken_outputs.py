"""An output that hangs, raises or is slow, in every command: nothing else suffers, and the loss is counted."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cmlr_edge.session.front_ends import FRONT_ENDS, command_of
from tests.conftest import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

_ODD_SINKS = """
import time
from pathlib import Path

class Raising:
    def __init__(self, request):
        pass
    def write(self, result):
        raise ZeroDivisionError("nobody thought of that")
    def close(self):
        pass

class Slow(Raising):
    def __init__(self, request):
        self.path = request.file
    def write(self, result):
        time.sleep(0.2)
        with self.path.open("a") as file:
            file.write("x")
"""
_POINTS = """[cmlr_edge.sinks]
raising = odd_sinks:Raising
slow = odd_sinks:Slow
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a package of somebody else's that brings two kinds of outputs."""
    packages = tmp_path / "packages"
    information = packages / "odd_sinks-1.0.dist-info"
    information.mkdir(parents=True)
    (packages / "odd_sinks.py").write_text(_ODD_SINKS)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-sinks\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(_POINTS)
    return os.environ | {"PYTHONPATH": str(packages)}


def start(
    front_end: str, engine: Path, folder: Path, trouble: str, environment: dict[str, str]
) -> subprocess.Popen[str]:
    sources = ["door=test://?fps=50", "yard=test://?fps=40"]
    command = command_of(front_end, sources, engine, folder)
    command += ["--csv", str(folder / "t.csv"), "--metrics-port", str(free_port())]
    command += ["--sink", f"{trouble}={folder / 'odd'}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def rows_of(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["source"] for row in csv.DictReader(file)]


# Every trouble in one command, which tells most at its end, and a hanging output in all.
@pytest.mark.parametrize(
    ("front_end", "trouble"),
    [*((front_end, "jsonl") for front_end in FRONT_ENDS), ("label", "raising"), ("label", "slow")],
)
def test_a_broken_output_harms_nothing_else_and_is_counted(
    engine: Path, tmp_path: Path, environment: dict[str, str], front_end: str, trouble: str
) -> None:
    if trouble == "jsonl":
        os.mkfifo(tmp_path / "odd")  # opening it waits for a reader, who never comes
    process = start(front_end, engine, tmp_path, trouble, environment)
    table = tmp_path / "t.csv"
    wait_until(lambda: table.exists() and len(rows_of(table)) >= 20, process)
    counted, began_s = len(rows_of(table)), time.monotonic()
    while time.monotonic() < began_s + 3 and len(rows_of(table)) < counted + 160:
        time.sleep(0.1)
    pace = (len(rows_of(table)) - counted) / (time.monotonic() - began_s)
    asked_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked_s < 10
    assert process.returncode == (143 if front_end == "label" else 0), errors
    rows = rows_of(table)
    assert pace > 50, "the other output should have 90 a second"
    assert min(rows.count("door"), rows.count("yard")) > 60
    written = len((tmp_path / "odd").read_text()) if trouble == "slow" else 0
    said = " ".join(errors.split())
    if trouble == "jsonl":
        found = re.search(r"odd hangs and is left behind; (\d+) results lost", said)
        assert found, errors
        assert int(found[1]) == len(rows)
    if front_end == "label":
        found = re.search(r"odd (?:is \w+|works again), (\d+) results or events lost", said)
        assert found, errors
        assert int(found[1]) == len(rows) - written
