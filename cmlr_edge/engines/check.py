"""What is known of one thing that was looked at before a model runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from cmlr_edge.errors import CmlrError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "failed"]
    message: str  # what there is; if not ok, also what was wanted
    remedy: str = ""  # what to do, where the message does not say it
    error: CmlrError | None = field(default=None, compare=False)  # what to raise if it failed

    def require(self) -> None:
        """Raise what failed, if it did."""
        if self.error is not None:
            raise self.error

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready object."""
        passed = self.state != "failed"
        record = {"name": self.name, "state": self.state, "passed": passed, "found": self.message}
        return record | {"remedy": self.remedy}


def look(name: str, at: Callable[[], str], *, remedy: str = "") -> Check:
    """Look at one thing: what it says is the message, and what it raises the failure."""
    try:
        return Check(name, "ok", at())
    except CmlrError as error:
        return Check(name, "failed", str(error), remedy, error)
