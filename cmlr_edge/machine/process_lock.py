"""A lock of one process: after a fork nobody is left in the child who would ever release it."""

from __future__ import annotations

import os
import threading

from cmlr_edge.errors import EngineError


class ProcessLock:
    """Held in a `with` block, also within another one of the same thread; refused in a forked child."""

    def __init__(self, refusal: str) -> None:
        """Belong to this process.

        Args:
            refusal: What a child is told.
        """
        self._lock, self._process, self._refusal = threading.RLock(), os.getpid(), refusal

    @property
    def is_ours(self) -> bool:
        """Whether this process made it."""
        return os.getpid() == self._process

    def __enter__(self) -> None:
        """Wait for it.

        Raises:
            EngineError: It was made before a fork.
        """
        if not self.is_ours:
            raise EngineError(self._refusal)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self._lock.release()
