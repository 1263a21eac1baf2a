"""How far something is that takes long: a bar on a terminal, lines now and then in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, TaskID, TimeRemainingColumn

Tell = Callable[[str], None]
_PAUSE_S = (10.0, 60.0)  # between two lines: short at first, then longer


class Pace:
    """Says in a line, now and then, how far something is."""

    def __init__(self, what: str, tell: Tell) -> None:
        """Begin to count what is done, and tell it to somebody."""
        self._what, self._tell = what, tell
        self._began = self._said = time.monotonic()
        self._first: tuple[float, float] | None = None  # when how many were done at first

    def reached(self, done: float, total: float | None) -> None:
        """Hear how many parts are done, of all if their number is known."""
        now = time.monotonic()
        if done and self._first is None:
            self._first = (now, done)
        if now - self._said < min(max((now - self._began) / 2, _PAUSE_S[0]), _PAUSE_S[1]):
            return
        if not done or (total is not None and done >= total):
            return
        self._said = now
        of_all = "" if total is None else f" of {total:.0f}{self._left(now, done, total)}"
        self._tell(f"{self._what}: {done:.0f}{of_all}")

    def _left(self, now: float, done: float, total: float) -> str:
        """By the parts behind the first: before it somebody loads, measures and warms up."""
        since, before = self._first or (now, done)
        if done <= before:
            return ""
        return f", some {(now - since) / (done - before) * (total - done):.0f} s left"


class _SpokenProgress(Progress):
    """Tasks as others, that nobody sees, told of in lines."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(disable=True)
        self._tell = tell
        self._paces: dict[TaskID, Pace] = {}

    def add_task(self, description: str, *given: Any, **options: Any) -> TaskID:
        task_id = super().add_task(description, *given, **options)
        self._paces[task_id] = Pace(description, self._tell)
        return task_id

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        task = self._tasks[task_id]
        self._paces[task_id].reached(task.completed, task.total)


def is_seen(console: Console) -> bool:
    """Whether a terminal shows it: FORCE_COLOR, which notebooks and build servers set, is none."""
    return console.file.isatty()


def progress_bars(
    console: Console,
    *columns: ProgressColumn,
    visible: bool = True,
    tell: Tell | None = None,
    transient: bool = False,
) -> Progress:
    """Bars for tasks, or lines where the console is no terminal.

    Args:
        console: Whose terminal it is.
        columns: Of a bar; without them a count and the time that is left.
        visible: Nothing is shown or said without it.
        tell: Takes the lines; without it the console does.
        transient: The bar goes when it is done.
    """

    def line(text: str) -> None:
        console.print(escape(text), highlight=False, soft_wrap=True)

    if visible and not is_seen(console):
        return _SpokenProgress(tell or line)
    usual = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*(columns or usual), console=console, disable=not visible, transient=transient)
