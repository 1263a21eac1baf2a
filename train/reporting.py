"""What every command of this folder does at its edge: log to stderr, and end on one clear line."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from cmlr_edge.cli import progress
from cmlr_edge.cli.progress import Pace
from cmlr_edge.errors import CmlrError, DependencyError, TrainingError
from cmlr_edge.redaction import one_line

_NO_MEMORY = re.compile(
    "out of memory|can(?:'t|not) allocate memory|failed to map segment", re.IGNORECASE
)
_LONGEST = 200  # characters of a reason
_OURS = ("__main__", "benchmarks", "cmlr_edge", "export", "train")
_log = logging.getLogger(__name__)


@contextmanager
def exit_on_error(process: int = 0) -> Iterator[None]:
    """Log to stderr; turn a deliberate error into one line there and exit code 2.

    Args:
        process: Of several, the first tells what goes on; the others only what went wrong.
    """
    console = Console(stderr=True)
    logging.basicConfig(
        level=logging.WARNING if process == 0 else logging.ERROR,
        format="%(message)s",
        handlers=[_Lines()],
    )
    for name in _OURS if process == 0 else ():  # libraries tell more than anybody wants to know
        logging.getLogger(name).setLevel(logging.INFO)
    # Its retries would fill the screen; what could not be had is said once, by our own error.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        with _missing_packages_named(), _said_when_memory_ends():
            yield
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(130)
    except CmlrError as error:
        who = f" in process {process}" if process else ""
        line = f"[red]error{who}:[/red] {escape(one_line(error))}"
        console.print(line, highlight=False, soft_wrap=True)
        sys.exit(2)


@contextmanager
def _missing_packages_named() -> Iterator[None]:
    """Turn an import that fails, of any package but our own, into one error."""
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _OURS:
            raise
        raise DependencyError(
            f"{package} is needed and cannot be imported ({error}): pip install -e '.[export]'"
        ) from error


@contextmanager
def _said_when_memory_ends() -> Iterator[None]:
    """Turn what NumPy, PyTorch, CUDA and the loader raise when there is not enough memory into one error."""
    try:
        yield
    except (MemoryError, RuntimeError, ImportError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        reason = next(iter(str(error).splitlines()), "")[:_LONGEST]
        raise TrainingError(
            f"there is not enough memory{reason and f' ({reason})'}: take a smaller batch_size, more "
            "parts (accumulate), or a smaller image or model"
        ) from error


def say(text: str) -> None:
    """Print one line on stderr, whatever is in it, to be read and copied."""
    Console(stderr=True).print(escape(text), highlight=False, soft_wrap=True)


def pace(what: str) -> Pace:
    """Count what is done, and log it now and then."""
    return Pace(what, _log.info)


def progress_bars(*, visible: bool = True) -> Progress:
    """Bars on stderr, or lines in the log; only one of several processes should show them."""
    return progress.progress_bars(Console(stderr=True), visible=visible, tell=_log.info)


class _Lines(logging.Handler):
    """Shows each message on one line with its time, however narrow the terminal, above bars if there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        say(f"{clock} {level}{self.format(record)}")
