"""Outputs that misbehave in ways that nobody plans for: no thread, no source and no end waits for them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.base import SourceHealth
from cmlr_edge.sinks.guarded import GuardedSink
from tests.cmlr_edge.sinks.results import result
from tests.cmlr_edge.sinks.samples import event, frame, prediction

HEALTH = [SourceHealth("door", is_ok=True)]


class Odd:
    """An output that does what a test wants, and notes who calls it."""

    def __init__(self, **does: Any) -> None:
        self.threads: set[str] = set()
        vars(self).update(does)

    def write(self, _result: Result) -> None:
        self.threads.add(threading.current_thread().name)

    def close(self) -> None:
        """Nothing to finish."""


def raising(kind: type[BaseException]) -> Callable[..., None]:
    def write(*_given: object) -> None:
        raise kind("stop")

    return write


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
def test_what_would_end_a_thread_costs_the_results_alone(kind: type[BaseException]) -> None:
    sink = GuardedSink(Odd(write=raising(kind)))
    for number in range(3):
        sink.write(result(frame(number), prediction()))
    sink.close(5.0)
    status = sink.status()
    assert (status.state, status.lost) == ("failing", 3)
    assert "stop" in status.reason


def test_an_error_whose_count_cannot_be_had_costs_one_result() -> None:
    class Bad(Exception):
        @property
        def lost(self) -> int:
            raise RuntimeError("no")

    sink = GuardedSink(Odd(write=raising(Bad)))
    sink.write(result(frame(0), prediction()))
    sink.close(5.0)
    assert sink.lost == 1


def test_an_output_hears_of_sources_in_its_own_thread_and_may_hang_there() -> None:
    may, heard = threading.Event(), []

    def watch(sources: list[SourceHealth]) -> None:
        heard.append((threading.current_thread().name, sources))
        may.wait()

    inner = Odd(watch=watch)
    sink = GuardedSink(inner, "odd", patience_s=0.05, flush_s=0.1)
    began_s = time.monotonic()
    for _ in range(3):
        sink.watch(HEALTH)
    sink.write(result(frame(0), prediction()))
    sink.close(0.3)
    assert time.monotonic() - began_s < 3
    assert heard == [("write odd", HEALTH)]
    assert (sink.lost, sink.status().state) == (1, "hanging")
    may.set()


def test_an_output_that_cannot_hear_is_told_once_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = Odd(watch=raising(ZeroDivisionError))
    sink = GuardedSink(inner, "odd")
    for number in range(3):
        sink.watch(HEALTH)
        sink.write(result(frame(number), prediction()))
        sink.flush()
    sink.close()
    assert sink.lost == 0
    assert [record.getMessage() for record in caplog.records] == [
        "odd cannot tell how sources are: stop"
    ]


def test_a_source_waits_once_for_the_files_of_an_event_and_not_again() -> None:
    may, asked = threading.Event(), []

    def files_of(*given: object) -> None:
        asked.append(given)
        may.wait()

    sink = GuardedSink(Odd(files_of=files_of), flush_s=0.1)
    for _ in range(3):
        assert sink.files_of(event(0), frame(0)) == {}
    assert len(asked) == 1
    may.set()


@pytest.mark.parametrize(
    ("answer", "files"),
    [
        ({"picture": 3}, {"picture": "3"}),
        (7, {}),
        (None, {}),
        ({"clip": "a.mp4"}, {"clip": "a.mp4"}),
    ],
)
def test_whatever_is_said_of_files_is_text(answer: object, files: dict[str, str]) -> None:
    sink = GuardedSink(Odd(files_of=lambda *_given: answer))
    assert sink.files_of(event(0), frame(0)) == files


def test_a_name_that_is_no_text_is_one() -> None:
    assert GuardedSink(Odd(name=5)).name == "5"


def test_ctrl_c_of_whoever_closes_an_inline_output_is_his() -> None:
    sink = GuardedSink(Odd(inline=True, close=raising(KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt):
        sink.close()


def test_an_output_that_says_what_it_lost_is_believed() -> None:
    def write(_result: Result) -> None:
        error = OutputError("three at once")
        error.lost = 3
        raise error

    sink = GuardedSink(Odd(write=write))
    sink.write(result(frame(0), prediction()))
    sink.close()
    assert sink.lost == 3
    assert sys.exc_info() == (None, None, None)


def test_an_output_that_keeps_events_meanwhile_says_why_it_delivers_none() -> None:
    odd = Odd(trouble="cannot be reached (Connection refused)")
    sink = GuardedSink(odd)
    status = sink.status()
    assert (status.state, status.reason, status.lost) == ("failing", odd.trouble, 0)  # type: ignore[attr-defined]
    for fine in ("", None, 3, odd.write):
        odd.trouble = fine  # type: ignore[attr-defined]
        assert sink.status().state == "ok"
    sink.close(1.0)


def test_an_output_that_cannot_say_what_its_trouble_is_is_in_trouble() -> None:
    class Raising(Odd):
        @property
        def trouble(self) -> str:
            raise ValueError("no idea")

    sink = GuardedSink(Raising())
    assert (sink.status().state, sink.status().reason) == ("failing", "no idea")
    sink.close(1.0)
