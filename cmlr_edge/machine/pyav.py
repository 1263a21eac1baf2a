"""The one place that imports PyAV, when it is first needed; the product works without it."""

from __future__ import annotations

from functools import cache
from types import ModuleType

_OLDEST = 14  # the first that tells the rotation of a frame


@cache
def pyav() -> ModuleType | None:
    """Return the `av` module, or None where it is missing, broken or too old."""
    try:
        import av
    except ImportError:
        return None
    version = str(getattr(av, "__version__", ""))
    major = version.split(".", maxsplit=1)[0]
    return av if major.isdecimal() and int(major) >= _OLDEST else None
