"""What holds for every test."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import LONGEST, length_of, pytest_runtest_call


@pytest.mark.parametrize("fails", [True, False])
def test_a_test_that_fails_leaves_no_process_behind(fails: bool) -> None:
    begin, run = subprocess.Popen.__init__, pytest_runtest_call()
    next(run)
    process = subprocess.Popen(["sleep", "60"])
    try:
        if fails:
            with pytest.raises(AssertionError, match="it failed"):
                run.throw(AssertionError("it failed"))
        else:
            with pytest.raises(StopIteration):
                run.send(None)
        assert (process.poll() is not None) is fails
        assert subprocess.Popen.__init__ is begin
    finally:
        process.kill()
        process.wait()


def test_the_longest_files_are_there_and_come_first_then_those_with_most_slow_tests() -> None:
    tests = Path(__file__).parent
    longest = [tests / name for name in LONGEST]
    assert [path for path in longest if not path.is_file()] == []
    others = [tests / name for name in ("a.py", "b.py", "c.py")]
    slow = Counter({others[2]: 2, others[0]: 1, longest[0]: 1})
    found = sorted([*others, *reversed(longest)], key=lambda path: length_of(path, slow))
    assert found == [*longest, others[2], others[0], others[1]]
