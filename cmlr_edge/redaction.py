"""Keeps passwords, and what a terminal would obey, out of names, logs, events and errors."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_MOST = 4096  # characters of a message; what a hostile peer says may have no end
_SECRET_WORD = re.compile(
    "pass|pwd|pw|user|login|token|key|auth|secret|sig|credential", re.IGNORECASE
)
# Behind the @ of a repository of the hub is its revision. A user and a password have no such shape.
_REVISION = r"(?<=(?<![\w+.-])hf:)//?(?:(?:datasets|models|spaces)/)?[\w.-]+/[\w.-]+@(?!\S*@)"
# Greedy up to the last @: a password may hold any character, an @ and a / among them.
_AFTER_SCHEME = re.compile(rf"(:(?!{_REVISION})//).*@", re.DOTALL | re.IGNORECASE)
# What `_AFTER_SCHEME` has left is no user with a password: the scheme stays readable.
_USER = rf"(?<![\w/])[^\s:@]*:(?!//\*\*\*@|{_REVISION})[^\s@]*@"
_WITHOUT_SCHEME = re.compile(rf"{_USER}\S*@|{_USER}", re.IGNORECASE)
_PLACE = re.compile(r"((?:[^/?#]*://)?[^/?#]*)/?(.*)", re.DOTALL)
_LOCATOR = re.compile(r"([^/?#;]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)  # behind ://
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+|[^A-Za-z0-9]+")  # of a segment of a path
_MOST_DIGITS, _MOST_DIGITS_IN_ALL = 3, 5  # the number of a channel is shorter than a PIN
# What paths of cameras and servers are made of; all else in a path may be somebody's key.
_USUAL = """
amp api app asf av avc axis bin cam camera cgi ch channel channels default dev feed flv h hd hevc high hls id
image img index ipcam isapi jpeg jpg live low m main master media mjpeg mjpg mp mpeg mpg nph onvif play
playlist preview profile realmonitor rtmp rtsp sd sdp snapshot stream streaming streams sub track ts u
unicast multicast vid video videos videostream view webcam
"""
_USUAL_WORDS = frozenset(_USUAL.split())
_USUAL_SIGNS = frozenset("-_.=+")
# A topic is in every message; keys of objects in a storage open nothing: its credentials lie elsewhere.
_OPEN_PATHS = {
    "mqtt", "mqtts", "s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "adl",
}  # fmt: skip
_NO_SCHEME = re.compile(r"[^\w+.-]")  # a bracket or a quote, say, before one
# What a path makes of an address that was given for a file.
# A scheme is short: without a bound a name of 100,000 letters would be looked through from each of them.
# One letter is a drive, and blanks are in the names of its files: the address is over at the next.
_ADDRESS_AS_PATH = re.compile(
    r"(?<![\w+.-])(?:([\w+.-]{2,40}:)/([^/\s](?:.*@\S*|\S*[?#]\S*))"
    r"|(\w:)/([^/\s](?:\S*:\S*@\S*|\S*[?#]\S*)))"
)
_LONGEST_SAFE = 80  # characters of a part of a topic or file name, before what tells it apart
_KEY_AND_VALUE = re.compile(r"(?<![\w-])([\w-]+)(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^&\s]+)")


def redact(text: str) -> str:
    """Replace user, password, every value of a query and what is unusual in a path by `***`.

    Rather too much is hidden than too little: of the path of an address stay the words that cameras use
    and short numbers, as in `rtsp://door/Streaming/Channels/101`. What `test://` is told stays too, and
    tells sources apart; so do the topic of `mqtt://`, which is in every message, and keys in a storage.

    Args:
        text: A URI, a GStreamer pipeline, or a message that quotes one.
    """
    if len(text) > _MOST:  # cut between words, so that no half of an address stays
        text = (text[: _MOST - 4].rpartition(" ")[0] or "***") + " ..."
    text = _AFTER_SCHEME.sub(r"\1***@", text)
    text = _WITHOUT_SCHEME.sub("***@", text)
    text = "".join(map(_without_values, re.split(r"(\s+)", text)))
    return _KEY_AND_VALUE.sub(_without_secret, text)


def redact_paths(message: str) -> str:
    """Hide what an address says too much that came where a file was wanted; other paths stay as they are."""
    return _ADDRESS_AS_PATH.sub(
        lambda found: redact("//".join(filter(None, found.groups()))), message
    )


def printable(text: str | Path) -> str:
    """Write out what is no character to print: control characters, and bytes of a name that is no UTF-8.

    Args:
        text: A name of a file, a label, a message; Linux lets a name be any bytes.
    """
    return "".join(c if c.isprintable() else _written_out(c) for c in str(text))


def safe_name(name: str) -> str:
    """Letters, digits, _ and - alone, for files and topics; names that would become alike stay apart."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    if safe == name and len(name) <= _LONGEST_SAFE:
        return safe
    number = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{safe[:_LONGEST_SAFE]}_{number}"


def one_line(message: object) -> str:
    """What a message says, on one line that a terminal only shows."""
    return printable(" ".join(str(message).split()))


def told(error: BaseException) -> str:
    """What an error says, on one line and without passwords; its type where it says nothing.

    An error of somebody else's may fail at saying it, too.
    """
    try:
        text = one_line(error)
    except Exception:  # noqa: BLE001 (whatever it is)
        text = ""
    return redact(text or type(error).__name__)


def _written_out(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python carries a byte that it cannot decode
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def redact_place(url: str) -> str:
    """Likewise, and without the path, which is the secret of many a webhook."""
    place, path = _PLACE.fullmatch(redact(url)).groups()  # type: ignore[union-attr]
    return f"{place}/***" if path else place


def _without_secret(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}***" if is_secret(found[1]) else found[0]


def is_secret(name: str) -> bool:
    """Whether what is called so is nobody else's business."""
    return _SECRET_WORD.search(name) is not None


def redact_source(text: str) -> str:
    """As `redact`, for a URI alone: a blank in it ends nothing."""
    is_address = "://" in text and " ! " not in text  # which a pipeline is not
    return redact(re.sub(r"\s", "%20", text) if is_address else text)


def source_name(name: str) -> str:
    """The name that a source has by itself, as it is shown: a URI without its secrets, a file's as it is."""
    return redact_source(name) if "://" in name else name


def _without_values(word: str) -> str:
    """Hide the secrets in the path of an address, and what stands behind its ? and #, or in a part of one."""
    scheme, mark, rest = word.partition("://")
    kind = _NO_SCHEME.split(scheme)[-1].lower()
    if kind == "test" and mark:
        return word
    if not mark:
        place, mark, query = word.partition("?")
        return f"{place}?{_without_answers(query)}" if mark and "=" in query else word
    host, path, query, fragment = _LOCATOR.fullmatch(rest).groups()  # type: ignore[union-attr]
    if kind not in _OPEN_PATHS:
        path = "/".join(map(_usual, path.split("/")))
    shown = f"{scheme}://{host}{path}"
    if query is not None:
        shown += f"?{_without_answers(query)}"
    return f"{shown}#***" if fragment else shown


def _without_answers(query: str) -> str:
    query, sharp, _ = query.partition("#")
    split = [part.partition("=") for part in re.split("[&;]", query)]
    parts = [f"{key}=***" if sign else "***" for key, sign, _ in split]
    return "&".join(parts) + ("#***" if sharp else "")


def _usual(segment: str) -> str:
    """A segment of a path, if it is made of usual words and short numbers alone."""
    name, semicolon, _ = segment.partition(";")
    parts = _PARTS.findall(name)
    numbers = [part for part in parts if part.isdigit()]
    is_usual = all(map(_is_usual, parts)) and len("".join(numbers)) <= _MOST_DIGITS_IN_ALL
    return (name if is_usual or name == "***" else "***") + (";***" if semicolon else "")


def _is_usual(part: str) -> bool:
    if part.isdigit():
        return len(part) <= _MOST_DIGITS
    return part.lower() in _USUAL_WORDS or _USUAL_SIGNS.issuperset(part)
