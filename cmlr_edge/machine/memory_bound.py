"""A bound on what this process may take while a strange model is loaded: a file of a few bytes may ask for all memory.

What goes beyond it fails to be allocated, which runtimes on the CPU tell as an error; nothing is
measured or copied for it. Runtimes of GPUs reserve far more than they use, so it is not for them.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmlr_edge.errors import EngineError
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.machine.hardware import available_memory

# A runtime with CUDA takes 1 GiB; it holds a model several times while it makes it its own.
_RUNTIME_BYTES, _COPIES = 2 * 2**30, 8
_IMAGE_BYTES = 256 * 2**20  # for each further image of a batch: large networks take half
_STACK_BYTES = 16 * 2**20  # that a thread reserves; runtimes start one for each core
_UNTOUCHED_BYTES = 2 * 2**30  # that libraries and threads may have reserved, and nobody counts
_PAGE = resource.getpagesize()
_STATM = Path("/proc/self/statm")


def memory_for(model_bytes: int, images: int = 1) -> int:
    """Bytes that a process may hold which loads a model.

    Args:
        model_bytes: Size of its file.
        images: That it is run on at once.
    """
    return _RUNTIME_BYTES + _COPIES * model_bytes + max(0, images - 1) * _IMAGE_BYTES


class _Bound:
    """The limit of this process, while any thread wants one; the last to leave restores it."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before, self._limit = (0, 0), 0

    def enter(self, more: int) -> None:
        with self._lock:
            wanted = _data_bytes() + more
            if not self._inside:
                self._before, self._limit = resource.getrlimit(resource.RLIMIT_DATA), wanted
            self._inside += 1
            self._limit = max(self._limit, wanted)
            soft, hard = self._before
            if soft == resource.RLIM_INFINITY or self._limit < soft:
                resource.setrlimit(resource.RLIMIT_DATA, (self._limit, hard))

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)


_bound = _Bound()


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Inside the block this process takes only so many bytes more than now, and no more than there are.

    Beyond it whatever allocates fails, in other threads too.
    """
    _bound.enter(min(more, available_memory()) + usable_cores() * _STACK_BYTES)
    try:
        yield
    finally:
        _bound.leave()


class FirstRuns:
    """Bounds the first run of each kind of a model: what one takes, the next ones take again."""

    def __init__(self, name: str, model_bytes: int | None) -> None:
        """Before the first.

        Args:
            name: Of the model's file, for messages.
            model_bytes: Its size; None where nothing is to be bounded.
        """
        self._name, self._model_bytes, self._done = name, model_bytes, set[int]()

    @contextmanager
    def of(self, kind: int) -> Iterator[None]:
        """Load or run inside the block.

        Args:
            kind: The size of a batch; 0 for loading.

        Raises:
            EngineError: The model asked for too much; anything else comes as it was.
        """
        if self._model_bytes is None or kind in self._done:
            yield
            return
        most = memory_for(self._model_bytes, kind)
        try:
            with bounded_memory(most):
                yield
        except Exception as error:
            if "alloc" not in str(error) and not isinstance(error, MemoryError):
                raise
            raise EngineError(
                f"{self._name} ({self._model_bytes} bytes) asks for more memory than there is, or than "
                f"the {most // 2**20} MiB that a model of its size may take: export the model again"
            ) from error
        self._done.add(kind)


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process, and its stacks; in a sandbox without /proc no less."""
    try:
        return int(_STATM.read_text().split()[5]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + _UNTOUCHED_BYTES
