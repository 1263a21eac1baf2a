"""What can be closed, in a `with` block or by hand."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self  # Python has its own from 3.11 on


class Closing:
    """A `with` block closes it at its end."""

    def close(self) -> None:
        """Release what it holds; nothing by default."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
