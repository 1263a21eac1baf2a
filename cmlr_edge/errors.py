"""Every exception that the SDK raises on purpose.

CmlrError
 ├─ SpecError        (ValueError)    the model spec is missing, malformed or contradicts itself
 ├─ EngineError      (RuntimeError)  the engine is missing, changed, not what its spec says, or cannot run
 ├─ FrameError       (ValueError)    what was handed over as an image is not one
 ├─ CaptureError     (OSError)       a camera, video or picture could not be opened or read
 ├─ OutputError      (OSError)       a result could not be written
 ├─ DataError        (ValueError)    training or evaluation data is missing or contradicts itself
 │   └─ TooFewError                  pictures or recordings are too few to tell: give more
 ├─ TrainingError    (RuntimeError)  training cannot go on
 └─ DependencyError  (ImportError)   an optional package is needed and not installed
"""

from __future__ import annotations

SOUND_ALONE = "sound alone"  # the kind of a file that shows nothing


class CmlrError(Exception):
    """Base class: `except CmlrError` catches everything the SDK raises on purpose."""


class SpecError(CmlrError, ValueError):
    """The model spec is missing, malformed or contradicts itself."""


class EngineError(CmlrError, RuntimeError):
    """The engine is missing, changed, not what its spec says, or cannot run here."""


class FrameError(CmlrError, ValueError):
    """What was handed over as an image is not one."""


class CaptureError(CmlrError, OSError):
    """A camera, video or picture could not be opened or read."""

    kind = ""  # what is wrong with a file, in a word or two, where that is known


class OutputError(CmlrError, OSError):
    """A result could not be written."""

    lost = 0  # how many results and events that cost, where it is not the one at hand


class DataError(CmlrError, ValueError):
    """Training or evaluation data is missing or contradicts itself."""


class TooFewError(DataError):
    """Pictures or recordings are too few, or tell too little: more are needed."""


class TrainingError(CmlrError, RuntimeError):
    """Training cannot go on."""


class DependencyError(CmlrError, ImportError):
    """An optional package is needed and not installed."""
