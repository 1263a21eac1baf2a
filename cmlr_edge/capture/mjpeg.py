"""JPEGs that a web server sends one after another (multipart/x-mixed-replace), as many cameras do.

FFmpeg reads them too, but it takes a picture for whole when the next one begins, where the server does
not tell lengths, and holds in memory whatever is sent as one picture.
"""

from __future__ import annotations

import re
import ssl
import struct
import time
from collections.abc import Iterator
from fractions import Fraction
from http.client import BadStatusLine, HTTPException, RemoteDisconnected
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib import request
from urllib.parse import unquote, urlsplit, urlunsplit

from cmlr_edge.capture.bounds import MAX_STREAM_BYTES, MAX_STREAM_PIXELS
from cmlr_edge.errors import CaptureError
from cmlr_edge.machine.addresses import as_sent

_CHUNK_BYTES = 2**16
_MAX_BETWEEN_BYTES = 2**16  # headers and whatever else stands between two pictures
_LONGEST_REASON = 100  # characters of what the server says
_START = b"\xff\xd8"
_LENGTH = re.compile(rb"content-length:\s*(\d{1,12})", re.IGNORECASE)
_WITHIN_DATA = {0x00, *range(0xD0, 0xD8)}  # behind a 0xff in the data of a picture: no marker


class MjpegContainer:
    """A connection that sends JPEGs; like a container of PyAV, as far as `Pump` needs one."""

    duration: int | None = None
    format = SimpleNamespace(name="mpjpeg", flags=0)

    def __init__(self, av: ModuleType, response: Any, timeout_s: float) -> None:
        """Take over an answered request.

        Args:
            av: PyAV.
            response: What the server sends.
            timeout_s: A picture has to come within.
        """
        self._av, self._response, self._timeout_s = av, response, timeout_s
        context = av.CodecContext.create("mjpeg", "r")
        context.options = {"max_pixels": str(MAX_STREAM_PIXELS)}
        self.stream = SimpleNamespace(
            codec_context=context,
            guessed_rate=None,
            average_rate=None,
            time_base=Fraction(1, 1000),
        )

    def demux(self, *_streams: Any) -> Iterator[Any]:
        """Yield pictures, each as soon as its last byte is here.

        Raises:
            CaptureError: It sends something else, or too much for a picture.
            OSError: The connection is lost, or no picture comes in time.
        """
        waiting = bytearray()
        while True:
            until_s = time.monotonic() + self._timeout_s
            while (end := _end_of_picture(waiting)) is None:
                if time.monotonic() > until_s:
                    raise TimeoutError(f"no whole picture for {self._timeout_s:g} s")
                chunk = self._response.read1(_CHUNK_BYTES)
                if not chunk:
                    return
                waiting += chunk
            packet = self._av.Packet(bytes(waiting[waiting.index(_START) : end]))
            packet.is_keyframe = True  # none needs another
            yield packet
            del waiting[:end]

    def close(self) -> None:
        """End the connection."""
        self._response.close()


def _end_of_picture(waiting: bytearray) -> int | None:
    """Where the first picture ends; None while bytes of it are missing.

    Raises:
        CaptureError: There is none, or it is too large.
    """
    start = waiting.find(_START)
    if start < 0:
        if len(waiting) > _MAX_BETWEEN_BYTES:
            raise CaptureError("it sends no JPEGs: give the address of its video stream")
        return None
    length = _LENGTH.search(waiting, 0, start)
    end = start + int(length[1]) if length else _end_by_marks(waiting, start + len(_START))
    size = len(waiting) - start if end is None else end - start
    if size > MAX_STREAM_BYTES:
        raise CaptureError(
            f"it sends a picture of {size} bytes or more: up to {MAX_STREAM_BYTES} are read"
        )
    return end if end is not None and end <= len(waiting) else None


def _end_by_marks(waiting: bytearray, at: int) -> int | None:
    """Walk from segment to segment; thumbnails within them have ends of their own."""
    while (at := waiting.find(b"\xff", at)) >= 0 and at + 4 <= len(waiting) + 2:
        mark = waiting[at + 1] if at + 1 < len(waiting) else None
        if mark is None:
            return None
        if mark == 0xD9:
            return at + 2
        if mark in _WITHIN_DATA or mark == 0x01:
            at += 2
        elif mark == 0xFF:
            at += 1
        elif at + 4 <= len(waiting):
            at += 2 + max(2, struct.unpack_from(">H", waiting, at + 2)[0])
        else:
            return None
    return None


def open_mjpeg(av: ModuleType, url: str, timeout_s: float) -> MjpegContainer | None:
    """Ask a web server for JPEGs; None where it sends something else.

    Args:
        av: PyAV.
        url: Of HTTP or HTTPS, with user and password if need be.
        timeout_s: For its first answer, and for each picture.

    Raises:
        CaptureError: It does not answer, or refuses.
    """
    try:
        response = _opener(url).open(_without_password(url), timeout=timeout_s)
        if "multipart/x-mixed-replace" in response.headers.get("Content-Type", "").lower():
            return MjpegContainer(av, response, timeout_s)
        response.close()
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected):
            raise CaptureError("it cannot be opened: what answers there speaks no HTTP") from error
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        code = f" ({error.code})" if isinstance(error, request.HTTPError) else ""
        said = str(reason)[:_LONGEST_REASON]
        raise CaptureError(f"it cannot be opened: {said}{code}") from error
    return None


class _Unknown(request.BaseHandler):
    """Leaves a way of asking for a password that is not known to the next handler, and in the end says 401."""

    def http_error_401(self, *answer: Any) -> Any:
        """Try, where urllib raises ValueError for what it does not know."""
        try:
            return super().http_error_401(*answer)  # type: ignore[misc]
        except ValueError:
            return None


class _Digest(_Unknown, request.HTTPDigestAuthHandler):
    pass


class _Basic(_Unknown, request.HTTPBasicAuthHandler):
    pass


def _opener(url: str) -> request.OpenerDirector:
    """What speaks HTTP, and nothing that reads files."""
    parts = urlsplit(url)
    passwords = request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        passwords.add_password(None, _without_password(url), user, password)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = (
        False,
        ssl.CERT_NONE,
    )  # cameras sign for themselves
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(context=context),
        request.HTTPDefaultErrorHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
        _Digest(passwords),
        _Basic(passwords),
    ):
        opener.add_handler(handler)
    return opener


def _without_password(url: str) -> str:
    """An address as HTTP asks for it."""
    scheme, place, path, query, _ = urlsplit(url)
    return urlunsplit((scheme, place.rpartition("@")[2], as_sent(path), as_sent(query), ""))
