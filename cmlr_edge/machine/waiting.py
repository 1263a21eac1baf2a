"""Waits for children and locks, which may be long: what is done meanwhile, and how they are broken off.

Whoever starts something slow says so with `while_waiting`; whoever waits deep inside it calls `tick`.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from io import FileIO
from threading import Event, Thread
from typing import IO, TypeVar

T = TypeVar("T")
_TICK_S = 0.02
_calls: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("while waiting", default=())


class Interrupted(BaseException):
    """Whoever wanted what is waited for wants it no more. No error: what handles those lets it pass."""


@contextmanager
def while_waiting(call: Callable[[], None]) -> Iterator[None]:
    """Call `call` many times a second while anything inside the block waits; it may raise `Interrupted`.

    A thread that is to do likewise runs in a copy of the context (`contextvars.copy_context`).
    """
    token = _calls.set((*_calls.get(), call))
    try:
        yield
    finally:
        _calls.reset(token)


def interrupted_when(unwanted: Callable[[], bool]) -> Callable[[], None]:
    """For `while_waiting`: break the wait off as soon as `unwanted` says so."""

    def call() -> None:
        if unwanted():
            raise Interrupted

    return call


def answer_of(job: Callable[[], T], timeout_s: float) -> T:
    """Let a thread do what may hang, and leave it behind then; `tick` goes on meanwhile.

    Raises:
        TimeoutError: It took longer.
        Exception: What it raised; a RuntimeError for what is to end a process.
        Interrupted: The wait is to be broken off.
    """
    answers, errors, is_over = list[T](), list[BaseException](), Event()

    def do() -> None:
        try:
            answers.append(job())
        except (Exception, Interrupted) as error:  # noqa: BLE001 (handed to whoever waits)
            errors.append(error)
        except BaseException as error:  # noqa: BLE001 (it ends a thread, and no more)
            errors.append(RuntimeError(f"{type(error).__name__}: {error}"))
        is_over.set()

    Thread(target=copy_context().run, args=(do,), daemon=True).start()
    deadline_s = time.monotonic() + timeout_s
    while not is_over.wait(_TICK_S):
        tick()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"gave no answer in {timeout_s:g} s")
    if errors:
        raise errors[0]
    return answers[0]


def tick() -> None:
    """Wait a moment.

    Raises:
        Interrupted: The wait is to be broken off.
    """
    for call in _calls.get():
        call()
    time.sleep(_TICK_S)


def await_lock(lock: IO[str] | IO[bytes], is_in_vain: Callable[[], bool]) -> bool:
    """Lock a file for this process alone; it is free again when the file is closed.

    Args:
        lock: The opened file.
        is_in_vain: Asked many times a second while another process holds it: whether to give up.

    Returns:
        Whether it is ours.

    Raises:
        Interrupted: The wait is to be broken off.
    """
    while not try_lock(lock):
        if is_in_vain():
            return False
        tick()
    return True


def try_lock(lock: IO[str] | IO[bytes] | FileIO | int, *, shared: bool = False) -> bool:
    """Lock a file for this process alone, unless another holds it; where there are no locks, none does.

    Args:
        lock: The opened file.
        shared: Not alone, but with all who lock it so.
    """
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # over a network either says that somebody holds it
        return False
    except OSError:  # a file system without locks
        pass
    return True
