"""What holds for every test."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from tests import conftest
from tests.conftest import LONGEST, length_of, pytest_runtest_call, pytest_runtest_protocol


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


def tried(said: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(failed=bool(said), longreprtext=said, user_properties=[])]


@pytest.mark.parametrize(
    ("room", "tries", "reported", "first_try"),
    [
        ("cmlr_edge", ["late", ""], "", "late"),
        ("cmlr_edge", ["late", "late again"], "late again", "late"),
        ("cmlr_edge", [""], "", None),
        ("cmlr_edge", ["Failed: Timeout (>300.0s)"], "Failed: Timeout (>300.0s)", None),
        ("train", [], None, None),  # as pytest does it: once
    ],
)
def test_only_what_holds_a_clock_is_tried_once_more_and_says_so(
    room: str,
    tries: list[str],
    reported: str | None,
    first_try: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = Mock(path=Path(__file__).parent / room / "test_it.py")
    runs = Mock(side_effect=[tried(said) for said in tries])
    monkeypatch.setattr(conftest, "runtestprotocol", runs)
    assert pytest_runtest_protocol(item, None) is (True if tries else None)
    assert runs.call_count == len(tries)
    shown = [call.kwargs["report"] for call in item.ihook.pytest_runtest_logreport.mock_calls]
    assert [report.longreprtext for report in shown] == ([] if reported is None else [reported])
    said = [text for report in shown for _, text in report.user_properties]
    assert said == ([] if first_try is None else [first_try])


def test_the_longest_files_are_there_and_come_first_then_those_with_most_slow_tests() -> None:
    tests = Path(__file__).parent
    longest = [tests / name for name in LONGEST]
    assert [path for path in longest if not path.is_file()] == []
    others = [tests / name for name in ("a.py", "b.py", "c.py")]
    slow = Counter({others[2]: 2, others[0]: 1, longest[0]: 1})
    found = sorted([*others, *reversed(longest)], key=lambda path: length_of(path, slow))
    assert found == [*longest, others[2], others[0], others[1]]
