"""Worker processes of this machine: each has a thread that hands it units and looks after it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from cmlr_edge.archive.dataset import Counts
from cmlr_edge.archive.plan import Unit
from cmlr_edge.archive.worker import (
    StoppedError,
    Task,
    UnitFailedError,
    Worker,
    WorkerSettings,
)

_MOST_FAILED = 20  # units that cannot be done: then the storage is down, and the run ends


class Crew(Protocol):
    """Who does units, in any order."""

    def work(self, task: Task, units: Iterable[Unit]) -> Iterator[tuple[Unit, Counts | str]]:
        """Yield each unit when it is done, with what came of it, or why it could not be done."""
        ...

    def request_end(self) -> None:
        """Let `work` end soon; a signal handler may call it."""
        ...

    def close(self) -> None:
        """Release all of it."""
        ...


class LocalCrew:
    """Processes of this machine."""

    def __init__(self, settings: WorkerSettings, workers: int) -> None:
        """Start nothing yet."""
        self._settings, self._count = settings, workers
        self._ending = threading.Event()

    def work(self, task: Task, units: Iterable[Unit]) -> Iterator[tuple[Unit, Counts | str]]:
        """See `Crew`.

        Raises:
            EngineError: No worker can be started.
        """
        ending = threading.Event()
        waiting, lock = iter(units), threading.Lock()
        results: queue.Queue[tuple[Unit, Counts | str] | BaseException | None] = queue.Queue()
        threads = [
            threading.Thread(
                target=self._look_after, args=(task, waiting, lock, results, ending), daemon=True
            )
            for _ in range(self._count)
        ]
        for thread in threads:
            thread.start()
        left, failed = len(threads), 0
        try:
            while left:
                result = results.get()
                if result is None:
                    left -= 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    failed += isinstance(result[1], str)
                    yield result
                    if failed >= _MOST_FAILED:
                        return
        finally:
            ending.set()
            for thread in threads:
                thread.join()

    def request_end(self) -> None:
        """See `Crew`: units that are under way are dropped."""
        self._ending.set()

    def close(self) -> None:
        """See `Crew`: `work` has ended its processes."""

    def _look_after(
        self,
        task: Task,
        waiting: Iterator[Unit],
        lock: threading.Lock,
        results: queue.Queue[tuple[Unit, Counts | str] | BaseException | None],
        ending: threading.Event,
    ) -> None:
        worker = Worker(self._settings, lambda: ending.is_set() or self._ending.is_set())
        try:
            while not (ending.is_set() or self._ending.is_set()):
                with lock:
                    unit = next(waiting, None)
                if unit is None:
                    break
                try:
                    results.put((unit, worker.do(task, unit)))
                except UnitFailedError as error:
                    results.put((unit, str(error)))
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (whoever waits for results raises it)
            results.put(error)
        finally:
            worker.close()
            results.put(None)
