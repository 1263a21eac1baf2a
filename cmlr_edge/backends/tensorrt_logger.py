"""The logger that TensorRT is given."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from typing import Any

_loggers: dict[Any, Any] = {}  # by module of TensorRT
_lock = threading.Lock()


def logger_of(trt: Any) -> Any:
    """The one logger that TensorRT is given in this process, which is never freed.

    TensorRT keeps the address of the first logger that it sees, hands it to plugins, and calls it on behalf
    of builders and runtimes that were given another: freed, it ends the process.
    """
    with _lock:
        if trt not in _loggers:
            _loggers[trt] = _new_logger(trt)
            # Also when the interpreter ends, which frees engines and modules in any order.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_loggers[trt]))
        return _loggers[trt]


def _new_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the last errors, for our messages."""

        def __init__(self) -> None:
            super().__init__()
            self._said: deque[str] = deque(maxlen=16)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                self._said.append(message)

        def take(self) -> str:
            """What was said since the last call, by any thread."""
            said = [*self._said]
            self._said.clear()
            return " / ".join(said) or "it gave no reason"

    return Logger()
