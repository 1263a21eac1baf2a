"""Pages of reference that the code writes: public names, commands, settings, events."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import typer

import cmlr_edge
from cmlr_edge.cli.app import app
from cmlr_edge.session import config


def reference_pages() -> dict[str, str]:
    """Markdown by file name."""
    return {
        "python.md": _python(),
        "commands.md": "# Commands\n\n"
        + "\n".join(_command(typer.main.get_command(app), "cmlr-edge")),
        "configuration.md": _configuration(),
    }


def _python() -> str:
    """Every public name, with its signature and docstring."""
    parts = [
        "# Python",
        "What `import cmlr_edge` offers. [The SDK by example](../docs/sdk.md) shows how it is used.",
    ]
    for name in cmlr_edge.__all__:
        item = getattr(cmlr_edge, name)
        target = f"{item.__module__}.{name}" if hasattr(item, "__module__") else f"cmlr_edge.{name}"
        parts.append(f"::: {target}\n    options:\n      heading_level: 2")
        if is_dataclass(item):
            parts.append(_table(item))
    return "\n\n".join(parts) + "\n"


def _command(command: Any, name: str) -> list[str]:
    """A command and those below it: what it does, its arguments and options."""
    lines = [f"## `{name}`", "", *_help_text(command), ""]
    rows = [row for parameter in command.params if (row := _parameter(parameter))]
    if rows:
        lines += ["| option | what it does |", "|---|---|", *rows, ""]
    for below, item in getattr(command, "commands", {}).items():
        lines += _command(item, f"{name} {below}")
    return lines


def _help_text(command: Any) -> list[str]:
    """The help of a command; a backspace marks lines that stay as they are, examples mostly."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    lines = list[str]()
    for paragraph in paragraphs:
        kept = paragraph.startswith("\b")
        text = re.sub(r"\[/?[a-z ]+\]", "", paragraph.removeprefix("\b").strip("\n"))
        lines += ["```text", text, "```", ""] if kept else [text, ""]
    return lines


def _parameter(parameter: Any) -> str:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return ""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name).upper()}`"
    text = " ".join((getattr(parameter, "help", "") or "").split()).replace("|", "\\|")
    return f"| {names} | {text} |"


def _configuration() -> str:
    """Every key of the TOML file, from the records that it fills."""
    parts = [
        "# Configuration",
        "Keys of the TOML file that `run` takes, and other commands by `--config`.",
        "[The service](../docs/service.md) shows a whole file. A source's `stability` has the keys of the run's.",
    ]
    for title, record in _sections("", config.SessionConfig):
        parts += [f"## {title}", inspect.getdoc(record) or "", _table(record)]
    return "\n\n".join(parts) + "\n"


def _sections(path: str, record: type, many: bool = False) -> Iterator[tuple[str, type]]:
    """The heading in the file and the record of it and of every section below."""
    yield (f"`[[{path}]]`" if many else f"`[{path}]`") if path else "Top of the file", record
    for name, annotation in inspect.get_annotations(record).items():
        where = f"{path}.{name}".lstrip(".") + (".LABEL" if "dict" in str(annotation) else "")
        if (below := _record_in(record, annotation)) and where != "sources.stability":
            yield from _sections(where, below, many="tuple" in str(annotation))


def _record_in(record: type, annotation: Any) -> type | None:
    """The record that an annotation names, if there is one."""
    names = vars(inspect.getmodule(record))
    words = re.findall(r"\w+", str(annotation))
    return next((names[word] for word in words if is_dataclass(names.get(word))), None)


def _table(record: Any) -> str:
    rows = [f"| {' | '.join(row)} |" for row in _fields(record)]
    return "\n".join(["| name | type | default | meaning |", "|---|---|---|---|", *rows])


def _fields(record: Any) -> list[tuple[str, str, str, str]]:
    """Name, type, default and comment of each field, as the source has them."""
    source = inspect.cleandoc(inspect.getsource(record))
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    rows = list[tuple[str, str, str, str]]()
    for item in body.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name = item.target.id
            comment = _comment(source.splitlines(), item) or _elsewhere(record, name)
            default = "required" if item.value is None else f"`{_default(item.value)}`"
            kind = ast.unparse(item.annotation).replace("|", "or")
            meaning = (comment[:1].upper() + comment[1:]).replace("|", "\\|")
            rows.append((f"`{name}`", f"`{kind}`", default, meaning))
    return rows


def _comment(lines: list[str], item: ast.AnnAssign) -> str:
    """The comment behind a field, or the lines of comment above it."""
    if behind := lines[(item.end_lineno or 1) - 1].partition("  # ")[2]:
        return behind
    above = list[str]()
    number = item.lineno - 2
    while lines[number].lstrip().startswith("# "):
        above.insert(0, lines[number].lstrip()[2:])
        number -= 1
    return " ".join(above)


def _elsewhere(record: Any, name: str) -> str:
    """The comment of a field in the record that the docstring names."""
    named = re.findall(r"`(\w+)`", inspect.getdoc(record) or "")
    other = vars(inspect.getmodule(record)).get(named[0]) if named else None
    if not is_dataclass(other):
        return ""
    return next(row[3] for row in _fields(other) if row[0] == f"`{name}`")


def _default(value: ast.expr) -> str:
    if isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg == "default_factory":
                factory = ast.unparse(keyword.value)
                return {"dict": "{}", "tuple": "()"}.get(factory, f"{factory}()")
    return ast.unparse(value)
