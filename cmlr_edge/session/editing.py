"""Changing what is looked at of a source while it runs: taken over by a reload, then kept in the TOML file.

Only what changes is written anew; all else of the file, comments included, stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cmlr_edge.errors import CmlrError, OutputError, SpecError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.files import followed, sha256_of
from cmlr_edge.model.strict_json import read_bounded
from cmlr_edge.session.changes import SourceChanges
from cmlr_edge.session.config import SessionConfig, SourceSettings, toml_reader
from cmlr_edge.session.session import Session

_FLAGS = {  # by setting
    "labels": "--labels",
    "thresholds": "--threshold",
    "masks": "--mask",
    "region": "--region",
    "tiles": "--tiles",
    "max_fps": "--max-fps",
    "active": "--active",
}


class SourceEditing(SourceChanges):
    """A `SourceControl` of the page for one session."""

    def __init__(
        self,
        session: Session,
        file: Path | None,
        reread: Callable[[Path | None], SessionConfig] | None,
    ) -> None:
        """Change nothing yet.

        Args:
            session: Whose sources they are.
            file: Its configuration; None where it has none.
            reread: Reads a configuration from a file that lies beside that one.
        """
        super().__init__(session)
        self._file, self._reread = file, reread

    def view(self, name: str) -> tuple[str, str, dict[str, Any]]:
        """What is looked at of a source; see `SourceControl`."""
        settings = self._settings(name)
        told = {key: _plain(getattr(settings, key)) for key in _FLAGS}
        try:
            content = self._content(settings)
        except CmlrError as error:
            return str(error), "", told
        return "", sha256_of(content), told

    def change(self, name: str, settings: dict[str, Any], version: str) -> None:
        """Take other settings over and write them into the file; see `SourceControl`."""
        wanted = {key: settings[key] for key in _FLAGS}
        self._content(self._settings(name))  # says at once what can never be
        self._ask(lambda: self._change(self._settings(name), wanted, version))

    def _settings(self, name: str) -> SourceSettings:
        found = self._session.names().get(name)
        if found is None:
            raise SpecError(f"there is no source {name} any more")
        return found

    def _content(self, settings: SourceSettings) -> bytes:
        """The file as it is now, if this source of it can be changed there.

        Raises:
            CmlrError: It cannot.
        """
        if self._file is None or self._reread is None:
            raise OutputError(
                "there is no configuration to write to: start with --config, or `cmlr-edge run`"
            )
        if not os.access(followed(self._file).parent, os.W_OK):
            raise OutputError(f"{self._file.parent} cannot be written to")
        try:
            content = read_bounded(self._file)
            sources = toml_reader().loads(content.decode("utf-8-sig")).get("sources", [])
        except (OSError, ValueError, RecursionError) as error:
            raise SpecError(f"cannot read {self._file}: {error}") from error
        # Somebody may be at work on the file: it need not hold what it held at the start.
        tables = sources if isinstance(sources, list) else []
        if settings.name not in [item.get("name") for item in tables if isinstance(item, dict)]:
            raise SpecError(f"it is not in {self._file}, so nothing of it can be kept there")
        return content

    def _change(self, before: SourceSettings, wanted: dict[str, Any], version: str) -> None:
        """Let one source go on otherwise, and put the file in its place if all went well."""
        assert self._file is not None
        assert self._reread is not None
        content, real = self._content(before), followed(self._file)
        if sha256_of(content) != version:
            raise SpecError(f"{self._file} was changed by somebody else meanwhile: look again")
        part = real.with_name(f".{real.name}.{os.getpid()}.part")
        former = self._session.config
        try:
            _write_like(real, part, edited(content, before.name, wanted))
            config = self._reread(part)  # which holds the whole file to its rules
            _check_taken(config, before.name, wanted)
            after = next(item for item in config.sources if item.name == before.name)
            looked_at = {key: getattr(after, key) for key in _FLAGS}
            self._apply(lambda now: _with_source(now, before, replace(before, **looked_at)))
            try:
                part.replace(real)
            except OSError:
                self._apply(lambda _: former)
                raise
        except OSError as error:
            raise OutputError(f"cannot write {self._file}: {error.strerror}") from error
        except CmlrError as error:
            raise SpecError(str(error).replace(str(part), str(self._file))) from error
        finally:
            part.unlink(missing_ok=True)


def _with_source(
    config: SessionConfig, before: SourceSettings, after: SourceSettings
) -> SessionConfig:
    sources = tuple(after if item == before else item for item in config.sources)
    return replace(config, sources=sources)


def edited(content: bytes, name: str, wanted: dict[str, Any]) -> bytes:
    """Change settings of one source in a TOML text.

    Args:
        content: Of the file.
        name: Of the source.
        wanted: By setting; what is empty or None is left out of the file.

    Raises:
        SpecError: The source is not there, or the file is written in a way that cannot be changed safely.
        DependencyError: tomlkit is not installed.
    """
    with needed("editing needs tomlkit", "pip install 'cmlr-edge[serve]'"):
        import tomlkit
    text, toml = content.decode("utf-8-sig"), toml_reader()
    goal = toml.loads(text)
    document = tomlkit.parse(text)
    tables: Any = document.get("sources", [])
    numbers = [i for i, item in enumerate(goal.get("sources", [])) if item.get("name") == name]
    if len(numbers) != 1:
        raise SpecError(f"no source of the configuration is called {name}")
    for key, value in wanted.items():
        _set(goal["sources"][numbers[0]], key, value)
        _set(tables[numbers[0]], key, value)
    changed = tomlkit.dumps(document)
    if toml.loads(changed) != goal:
        raise SpecError(
            "the configuration is written in a way that cannot be edited here: use an editor"
        )
    return changed.encode()


def _set(table: Any, key: str, value: Any) -> None:
    if _is_nothing(value):
        table.pop(key, None)
        return
    if table.get(key) == value:
        return
    if key in table and isinstance(value, dict):
        for name in [name for name in table[key] if name not in value]:
            del table[key][name]
        for name, number in value.items():
            _set(table[key], name, number)
        return
    if key in table or not hasattr(table, "value"):
        table[key] = value
        return
    _append(table, key, value)


def _is_nothing(value: Any) -> bool:
    """Whether a setting of this value need not be in a file; 0 is a number like others."""
    return value is None or value in ([], {}, "")


def _append(table: Any, key: str, value: Any) -> None:
    """Add a setting behind the last one, and before the comments that belong to what follows."""
    import tomlkit

    body, behind = getattr(table.value, "body", []), []
    while body and body[-1][0] is None:
        behind.append(body.pop())
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        value = inline
    table[key] = value
    body += reversed(behind)


def _write_like(real: Path, part: Path, content: bytes) -> None:
    """Write a file that may be read and written by the same people as another."""
    about = real.stat()
    with open(part, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), about.st_mode & 0o7777)
        if (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), about.st_uid, about.st_gid)
        os.fsync(file.fileno())


def _check_taken(config: SessionConfig, name: str, wanted: dict[str, Any]) -> None:
    """Refuse a change that the command line undoes."""
    source = next(item for item in config.sources if item.name == name)
    for key, value in wanted.items():
        taken = _plain(getattr(source, key))
        if taken != value and not (_is_nothing(taken) and _is_nothing(value)):
            raise SpecError(f"{_FLAGS[key]} counts more than the file: start without it")


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON and TOML have them."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
