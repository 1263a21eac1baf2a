"""What visitors may change of a source, and who does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class SourceSettingsView:
    """What is looked at of one source, and whether that can be changed here."""

    reason: str  # why it cannot be changed, for people; "" where it can
    version: str  # to be sent along with a change
    settings: dict[str, Any]  # as `SourceEdit`


class Editor(Protocol):
    """Changes the sources of a session; any thread may ask."""

    def view(self, name: str) -> SourceSettingsView:
        """What is looked at of a source."""
        ...

    def change(self, name: str, settings: dict[str, Any], version: str) -> None:
        """Look at a source otherwise, and write that into the configuration, or change nothing.

        Raises:
            CmlrError: It cannot be; one line says why.
        """
        ...


class NoEditor:
    """Where nothing can be changed, and why."""

    def __init__(self, reason: str) -> None:
        """Remember why."""
        self._reason = reason

    def view(self, _name: str) -> SourceSettingsView:
        """Say why nothing can be changed."""
        return SourceSettingsView(self._reason, "", {})

    def change(self, _name: str, _settings: dict[str, Any], _version: str) -> None:
        """Refuse.

        Raises:
            PermissionError: Always.
        """
        raise PermissionError(self._reason)
