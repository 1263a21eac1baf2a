"""Secrets that are written nowhere but in the environment or in a file of their own.

`${NAME}` in an address or token stands for an environment variable, `${file:PATH}` for the text of a file.
They are put in where a thing is opened, so that settings, messages and `ps` only ever hold the reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from cmlr_edge.errors import SpecError
from cmlr_edge.model.files import read_file

_REFERENCE = re.compile(r"\$\{(file:)?([^{}]*)\}")
_MAX_BYTES = 64 * 1024


class SecretError(SpecError):
    """What a reference stands for is not there, or is no secret."""

    reference = ""  # as it is written
    is_file = False  # or a variable of the environment


def has_reference(text: str) -> bool:
    """Whether something is to be put in."""
    return "${" in text


def secret_files(text: str, folder: Path) -> list[Path]:
    """Files that a text's references lead to; without those whose place the environment is yet to tell."""
    names = [os.path.expandvars(found[2]) for found in _REFERENCE.finditer(text) if found[1]]
    return [folder / name for name in names if "$" not in name]


def put_in(text: str, folder: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Replace the references in a text.

    What stands inside an address is %-encoded there, as a user or password has to be; a reference that
    is the whole text is taken as it is.

    Args:
        text: With any number of references.
        folder: What relative paths start from.
        environment: Holds the variables.

    Raises:
        SecretError: There is no such variable or file, or it holds no single line.
    """

    def value(found: re.Match[str]) -> str:
        try:
            name = found[2]
            plain = _from_file(folder, name) if found[1] else _from(environment, name)
        except SecretError as error:
            error.reference, error.is_file = found[0], bool(found[1])
            raise
        word = re.split(r"\s", text[: found.start()])[-1]  # of a pipeline, which has many
        is_inside = "://" in word
        return quote(plain, safe="") if is_inside else plain

    return _REFERENCE.sub(value, text)


def _from(environment: Mapping[str, str], name: str) -> str:
    if not re.fullmatch(r"\w+", name, re.ASCII):
        raise SecretError(f"cannot read ${{{name}}}: expected ${{NAME}} or ${{file:PATH}}")
    if (value := environment.get(name)) is None:
        raise SecretError(
            f"${{{name}}} is to be put in, and there is no such environment variable: set it"
        )
    return _one_line(value, f"the environment variable {name}")


def _from_file(folder: Path, name: str) -> str:
    path = folder / os.path.expandvars(name)  # such as $CREDENTIALS_DIRECTORY/camera
    try:
        text = read_file(path, _MAX_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SecretError(
            f"${{file:{name}}}: {path} cannot be read: {reason}; it should hold the secret as its only line"
        ) from error
    if len(text.encode()) > _MAX_BYTES:
        raise SecretError(f"{path} holds more than {_MAX_BYTES} bytes: it should hold one line")
    return _one_line(text, str(path))


def _one_line(value: str, where: str) -> str:
    value = value.removesuffix("\n").removesuffix("\r")
    if not value or not value.isprintable():
        raise SecretError(f"{where} should hold one line of printable text, to be put in")
    return value
