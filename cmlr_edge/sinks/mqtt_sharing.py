"""Other programs that write under a topic that is ours alone: noticed, told once, and answered rarely."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Literal

from cmlr_edge.events.event import RUN
from cmlr_edge.machine.rarely import Rarely

_ANSWER_S = 5.0  # between two answers: two programs must not answer each other for ever
_REPLY_S = 5.0  # in which another program that runs has answered us
_log = logging.getLogger(__name__)


class Sharing:
    """Says when to tell all again, and whether nobody else runs; used under its owner's lock.

    A program that comes tells its run, which one that is there answers with its own, so that both know.
    One that goes leaves "offline", also for whoever is still there, who then tells everything again. So
    does a former connection of ours that the broker gives up late.
    """

    def __init__(self, name: str, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Know of nobody.

        Args:
            name: Of the output, for people.
            topic: That is ours.
            clock: Seconds.
        """
        self._name, self._topic, self._clock = name, topic, clock
        self._found: dict[str, str] = {}  # retained, as it was before we came
        self._alone_s = math.inf  # from when on nobody else is taken to run
        self._are_others = False
        self._said_s = {"run": -math.inf, "all": -math.inf}  # when that was answered last
        self._asked: Literal["", "run", "all"] = ""
        self._told_of, self._rarely = "", Rarely()

    def come(self) -> None:
        """Begin a connection: what is retained is yet to be read."""
        self._found.clear()
        self._alone_s = math.inf

    def greet(self) -> None:
        """The broker has taken our own state."""
        run = self._found.get("run", RUN)
        is_another = self._found.get("availability") == "online" and run != RUN
        if not self._are_others:  # may be a former one of ours, whose end nobody noticed
            self._alone_s = self._clock() + _REPLY_S * is_another

    def take(self, what: str, said: str, *, is_retained: bool) -> None:
        """Take what is told of a run or its availability.

        Args:
            what: "run" or "availability".
            said: By us or by somebody else.
            is_retained: From before we came.
        """
        if is_retained:
            self._found[what] = said
        elif not said or (what == "availability" and said == "offline"):
            self._asked, self._are_others = "all", False
            self._alone_s = self._clock() + _REPLY_S
        elif what == "run" and said != RUN:
            self._asked = self._asked or "run"
            self._are_others, self._alone_s = True, math.inf
            self._warn(said)

    def answer(self) -> Literal["", "run", "all"]:
        """What is to be told again now: our run, or everything."""
        asked, now_s = self._asked, self._clock()
        may = asked and now_s - self._said_s[asked] >= _ANSWER_S
        if may or asked == "run":  # an answer to an answer would never end
            self._asked = ""
        if not (may and asked):
            return ""
        self._said_s |= {"run": now_s, asked: now_s}
        return asked

    def is_alone(self) -> bool:
        """Whether no other program seems to run on this topic."""
        return self._clock() >= self._alone_s

    def _warn(self, run: str) -> None:
        if run != self._told_of and self._rarely.may_say():
            _log.warning(
                "%s: another program writes to %s too (run %.40r), so Home Assistant and others take "
                "its states for ours: give each program a topic of its own",
                self._name,
                self._topic,
                run,
            )
        self._told_of = run
