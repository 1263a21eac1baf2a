"""An output whose place another one is yet to leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from cmlr_edge.sinks.base import Result, SourceHealth, Takes


class Later:
    """An output that connects when it is first needed."""

    takes: Takes = "events"
    pictures = False

    def __init__(self, opening: Callable[[], Any]) -> None:
        """Remember how it is opened."""
        self._opening = opening

    @cached_property
    def _sink(self) -> Any:
        return self._opening()

    @property
    def trouble(self) -> str:
        """See `Sink`."""
        return str(self._sink.trouble) if "_sink" in vars(self) else ""

    def watch(self, sources: Sequence[SourceHealth]) -> None:
        """See `Sink`."""
        self._sink.watch(sources)

    def write(self, result: Result) -> None:
        """See `Sink`."""
        self._sink.write(result)

    def close(self) -> None:
        """See `Sink`; what was never needed stays unopened."""
        if "_sink" in vars(self):
            self._sink.close()
