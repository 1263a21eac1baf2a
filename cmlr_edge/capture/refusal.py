"""Why a camera gives no picture: told apart by what the reader's error says."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A reason, for people, and whether trying again soon does harm."""

    reason: str
    may_lock: bool = False  # cameras lock an account after a few wrong passwords


_ADDRESS = re.compile(r"\w+://\S+")  # its port may be 401 too
_KNOWN = {
    r"\b401\b|unauthori[sz]ed": Refusal(
        "401: it does not accept user and password; tried again seldom, so that no account is locked",
        may_lock=True,
    ),
    r"\b403\b|forbidden": Refusal(
        "403: it refuses this user; tried again seldom, so that no account is locked", may_lock=True
    ),
    r"\b404\b": Refusal("404: it has no such stream; check the path of the address"),
    r"\b461\b|unsupported transport|nonmatching transport|protocol not supported": Refusal(
        "it sends over UDP only, which loses packets; switch RTSP over TCP on in the camera"
    ),
    r"wrong.version.number": Refusal("it speaks no TLS at this port; try http:// or rtsp://"),
    r"name or service not known|name resolution|no address associated": Refusal(
        "nobody knows the name of its host; check it, or give its number"
    ),
    r"no video|not contain any (?:video )?stream": Refusal(
        "it answers and holds no video; check the path of the address"
    ),
}


def why_refused(said: str) -> Refusal | None:
    """Classify what a reader said when it could not open a stream.

    Args:
        said: The text of its error, or a status such as "404 Not Found".

    Returns:
        None where that is no known refusal: the camera may be away.
    """
    text = _ADDRESS.sub("", said)
    found = (refusal for words, refusal in _KNOWN.items() if re.search(words, text, re.IGNORECASE))
    return next(found, None)
