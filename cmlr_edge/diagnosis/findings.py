"""One line of a report on this machine: what was looked at, how it is, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    state: State  # warning: works, with less than it could; problem: something does not work
    found: str
    remedy: str = ""  # what to do, where something is to do


class Report:
    """Makes the findings of one group."""

    def __init__(self, group: str) -> None:
        """Name the group."""
        self._group = group

    def ok(self, name: str, found: str) -> Finding:
        """All is well."""
        return Finding(self._group, name, "ok", found)

    def warning(self, name: str, found: str, remedy: str) -> Finding:
        """It works, with less than it could."""
        return Finding(self._group, name, "warning", found, remedy)

    def problem(self, name: str, found: str, remedy: str) -> Finding:
        """Something does not work."""
        return Finding(self._group, name, "problem", found, remedy)
