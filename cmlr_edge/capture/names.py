"""Names of files for libraries that take text: on Linux a name is bytes, and need not be UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A text that opens the file inside the block; absolute, so that a colon in it is no protocol.

    Raises:
        OSError: The file cannot be opened.
    """
    text = str(path.absolute())
    try:
        text.encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        yield text
