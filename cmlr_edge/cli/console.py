"""Where every command says what went wrong, and what it does for long."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from cmlr_edge.recognizer import Recognizer
from cmlr_edge.session.session import Session

stderr = Console(stderr=True)


def print_start(session: Session) -> None:
    """Say where the page is, and what runs."""
    if session.page_url:
        how = " (visitors need the token)" if session.config.page.token else ""
        text = f"live page at [bold]{escape(session.page_url)}[/bold]{how}"
        stderr.print(text, soft_wrap=True, highlight=False)
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
