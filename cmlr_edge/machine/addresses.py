"""Addresses to bind, and those to ask."""

from __future__ import annotations

import ipaddress
import string
from urllib.parse import quote

# What to say where an address cannot be read; without the at sign itself, for what stands before one is
# taken for a password, and hidden.
HOW_TO_WRITE_PASSWORDS = "of a password, write / ? # and the at sign as %2F %3F %23 %40"


def is_loopback(host: str) -> bool:
    """Tell whether an address to bind can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_host(name: str) -> bool:
    """Tell whether a name can be a host's: no part is empty or beyond 63 letters, as in `door..local`."""
    try:
        name.encode("idna")
    except UnicodeError:  # who looks such a name up gets this error, and no OSError
        return False
    return " " not in name


def as_sent(path: str) -> str:
    """Write a path or query as HTTP sends it: `/küche` as `/k%C3%BCche`; what is written so stays."""
    return quote(path, safe=string.punctuation)
