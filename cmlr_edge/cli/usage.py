"""What was typed wrong, in one line: by itself Typer draws a box of several lines around it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from cmlr_edge.errors import CmlrError, OutputError
from cmlr_edge.redaction import redact

# Click's own class, whichever Click this Typer comes with.
_ClickError: Any = typer.BadParameter.__mro__[2]
_LONGEST_NAME = 200  # characters that a message repeats


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line.

    Args:
        app: With all its commands.
        name: What is typed to start it, for messages.

    Raises:
        OutputError: A file that was named cannot be used.
        CmlrError: An unknown command or flag, a value that is none, an argument that is missing;
            and whatever the commands raise.
        SystemExit: With the exit code that a command gave.
    """
    try:
        code = app(prog_name=name, standalone_mode=False)
    except _ClickError as error:
        message = redact(error.format_message()).rstrip(".")
        if message:
            context = getattr(error, "ctx", None)
            command = context.command_path if context is not None else name
            raise CmlrError(
                f"{message}{_without_a_name(error)} (see `{command} --help`)"
            ) from error
        code = error.exit_code  # nothing was asked for, and the help was printed
    except OSError as error:
        if error.filename is None:  # no matter of a name that was given
            raise
        name = str(error.filename)
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
        raise OutputError(f"cannot use {name}: {error.strerror}") from error
    if code:
        sys.exit(code)


def _without_a_name(error: Any) -> str:
    """What to type for --engine, where a command takes its ENGINE as it is."""
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    if option is None or context is None:
        return ""
    name = option.lstrip("-")
    arguments = [p.name for p in context.command.params if p.param_type_name == "argument"]
    return (
        f": give it without {option}, `{context.command_path} {name.upper()}`"
        if name in arguments
        else ""
    )


def run_command(command: Callable[..., None], name: str) -> None:
    """Likewise, for a program that is one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app, name)
