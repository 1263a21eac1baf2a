"""Where every command says what went wrong, and what it does for long."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.markup import escape

from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import one_line, redact_paths
from cmlr_edge.session.session import Session

stderr = Console(stderr=True)


class LogLines(logging.Handler):
    """Shows what is logged as errors are shown: one line each, however narrow the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, above a progress bar if there is one."""
        level = record.levelname.lower()
        colors = {logging.INFO: "cyan", logging.WARNING: "yellow"}
        color = colors.get(record.levelno, "red")
        _print_line(f"[{color}]{level}:[/{color}] ", record.getMessage())


def print_error(error: BaseException | str) -> None:
    """Say what ended the command."""
    _print_line("[red]error:[/red] ", error)


def _print_line(head: str, message: object) -> None:
    stderr.print(head + escape(redact_paths(one_line(message))), highlight=False, soft_wrap=True)


def print_page(session: Session) -> None:
    """Say where the live page is, if there is one."""
    if session.page_url:
        how = " (visitors need the token)" if session.config.page.token else ""
        text = f"live page at [bold]{escape(session.page_url)}[/bold]{how}"
        stderr.print(text, soft_wrap=True, highlight=False)


def print_start(session: Session) -> None:
    """Say where the page is, and what runs."""
    print_page(session)
    print_device(session.recognizer)


def print_away(session: Session) -> None:
    """Say at the end which cameras and streams gave no frames."""
    for status in session.status():
        if status.away:
            stderr.print(escape(f"{status.name}: {status.reason}"), soft_wrap=True, highlight=False)


def print_device(recognizer: Recognizer) -> None:
    """Say what runs, and where it really runs, at the start of what goes on until it is ended."""
    text = f"{recognizer.spec.name} runs on {recognizer.runtime}; Ctrl-C ends"
    stderr.print(escape(text), soft_wrap=True, highlight=False)
