"""Files in the body of a form, `curl -F p=@a.jpg`: kept in memory, where others write them to the disk."""

from __future__ import annotations

import re
from email.message import Message

from cmlr_edge.errors import FrameError

_FILE_NAME = re.compile(rb'[;\s]filename="([^"\r\n]*)"', re.IGNORECASE)
_SHOWN = 200  # characters of a name


def files_of(body: bytes, content_type: str, *, most: int) -> list[tuple[str, bytes]]:
    """Return the names and contents of the files in a form (RFC 7578); its other fields are left out.

    Args:
        body: Of the request.
        content_type: Of the request, "multipart/form-data; boundary=...".
        most: Files that may come.

    Raises:
        FrameError: It holds none, or more, or is cut short.
    """
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise FrameError("the form names no boundary: let a client like curl -F make it")
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode(), most + 2)
    if not parts or not parts[-1].startswith(b"--"):
        raise FrameError(f"the form is cut short, or holds more than {most} files")
    files = []
    for part in parts[:-1]:
        head, blank, content = part.partition(b"\r\n\r\n")
        if not blank:
            raise FrameError("a part of the form has no headers")
        if (name := _FILE_NAME.search(head)) is not None:
            text = name[1].decode(errors="replace")[:_SHOWN]
            files.append(("".join(c if c.isprintable() else "_" for c in text), content))
    if not files:
        raise FrameError("the form holds no files: send each as curl -F p=@photo.jpg")
    return files
