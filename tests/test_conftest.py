"""What holds for every test."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import pytest_runtest_call


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
