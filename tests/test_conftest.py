"""What holds for every test."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
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
    ("tries", "first_try"),
    [
        (["late", ""], "late"),
        (["late", "late again"], "late"),
        ([""], None),
        (["Failed: Timeout (>300.0s)"], None),
    ],
)
def test_what_fails_is_tried_once_more_and_says_so(
    tries: list[str], first_try: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = Mock(_report_sections=[("call", "log", "of the first try")] if tries[1:] else [])
    runs = Mock(side_effect=[tried(said) for said in tries])
    monkeypatch.setattr(conftest, "runtestprotocol", runs)
    assert pytest_runtest_protocol(item, None) is True
    assert runs.call_count == len(tries)
    shown = [call.kwargs["report"] for call in item.ihook.pytest_runtest_logreport.mock_calls]
    assert [report.longreprtext for report in shown] == tries[-1:]
    said = [text for report in shown for _, text in report.user_properties]
    assert said == ([] if first_try is None else [first_try])
    assert item._report_sections == []


@pytest.mark.filterwarnings("error")
def test_what_a_first_try_left_open_is_not_the_second_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Mock()
    monkeypatch.setattr(sys, "unraisablehook", told)

    def first(*_: object, **__: object) -> list[SimpleNamespace]:
        left = [socket.socket()]
        left.append(left)  # type: ignore[arg-type]  # only the collector ends it
        try:
            next(iter(()))
        except StopIteration as error:
            sys.last_value = error  # and all that this function holds
        return tried("late")

    tries = iter((first, lambda *_, **__: [gc.collect(), tried("")][1]))
    monkeypatch.setattr(conftest, "runtestprotocol", lambda *_, **given: next(tries)(**given))
    assert pytest_runtest_protocol(Mock(_report_sections=[]), None) is True
    assert told.mock_calls == []
    assert not hasattr(sys, "last_value")


def test_the_longest_files_are_there_and_come_first_then_those_with_most_slow_tests() -> None:
    tests = Path(__file__).parent
    longest = [tests / name for name in LONGEST]
    assert [path for path in longest if not path.is_file()] == []
    others = [tests / name for name in ("a.py", "b.py", "c.py")]
    slow = Counter({others[2]: 2, others[0]: 1, longest[0]: 1})
    found = sorted([*others, *reversed(longest)], key=lambda path: length_of(path, slow))
    assert found == [*longest, others[2], others[0], others[1]]
