"""The command line: a module per command, put together in `app.py`."""

from __future__ import annotations

import io
import logging
import os
import sys
from contextlib import suppress
from typing import Any

from cmlr_edge.errors import CmlrError
from cmlr_edge.machine.allocator import bound_arenas
from cmlr_edge.machine.needed import NO_MEMORY, NO_THREAD

# No width: rich would print nothing at all. Whatever prints by rich, training too, imports this first.
if not os.environ.get("COLUMNS", "").strip("0"):
    os.environ.pop("COLUMNS", None)


class _LossyFile(io.FileIO):
    """What is said on stderr is lost where its disk is full or nobody reads it; the work goes on."""

    def write(self, content: Any, /) -> int:
        with suppress(OSError):
            return super().write(content)
        return len(content)


def main() -> None:
    """Run the command line; every deliberate error is one line on stderr and exit code 2."""
    try:
        _run()
    except KeyboardInterrupt:  # before a command has begun, which tells what it has done so far
        sys.exit(130)


def _run() -> None:
    _open_closed_streams()
    try:
        from cmlr_edge.cli.app import app
        from cmlr_edge.cli.console import LogLines, print_error
        from cmlr_edge.cli.usage import run_app
    except ModuleNotFoundError as missing:
        if missing.name not in {"typer", "rich"}:
            raise
        sys.exit(f"error: the command line needs {missing.name}: pip install cmlr-edge")
    bound_arenas()
    # FFmpeg's own lines on stderr would stand beside our one-line errors; -8 is its "quiet".
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    logging.basicConfig(level=logging.WARNING, handlers=[LogLines()])
    # What runs from now on: a model, measured once per machine, accepted in an update, or gone back to; a configuration.
    for name in ("engines.auto", "session.runner", "session.session", "session.updates"):
        logging.getLogger(f"cmlr_edge.{name}").setLevel(logging.INFO)
    _write_whatever_the_terminal_takes()
    _say_what_can_be_said()
    try:
        run_app(app, "cmlr-edge")
    except CmlrError as error:
        print_error(error)
    except OSError as error:
        print_error(_why(error))
    except Exception as error:
        # By Python and by Arrow.
        if isinstance(error, MemoryError):
            print_error(NO_MEMORY)
        elif any(words in str(error) for words in ("start new thread", "launch worker thread")):
            print_error(NO_THREAD)
        else:
            raise
    else:
        return
    with suppress(OSError, ValueError):
        sys.stdout.close()  # or Python tries at its end to write what is left, and fails once more
    sys.exit(2)


def _why(error: OSError) -> str:
    if error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError):  # what it was looked for in
        return "the current folder does not exist any more: go to another"
    return f"{error}; what was said last may be missing"  # it is the terminal, or a pipe


def _open_closed_streams() -> None:
    """Let no file get the number of a standard stream that was closed: runtimes print into those."""
    try:
        nothing, flags = os.devnull, os.O_RDWR
        number = os.open(nothing, flags)
    except OSError:  # a sandbox without /dev
        nothing, flags = "/", os.O_RDONLY
        number = os.open(nothing, flags)
    while number < 3:  # it gets the lowest that is free
        number = os.open(nothing, flags)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None and nothing != "/":  # it was closed when Python started
            setattr(sys, name, open(nothing, "w"))  # noqa: SIM115, PTH123 (open to the end)


def _write_whatever_the_terminal_takes() -> None:
    """Print `?` for letters and frames of tables that a terminal's encoding lacks."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _say_what_can_be_said() -> None:
    """Let a line on stderr that cannot be written end nothing: neither a service, nor with another exit code."""
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        file = io.BufferedWriter(_LossyFile(sys.stderr.fileno(), "w", closefd=False))
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = io.TextIOWrapper(file, encoding, errors, line_buffering=True)
