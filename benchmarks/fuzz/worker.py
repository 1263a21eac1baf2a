"""One process that opens damaged files, one after another, under limits on memory.

Run by `benchmarks.fuzz`: it reads a line per case and answers with a line, so that the process that
started it knows which case it died of, or hangs in.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from pathlib import Path

import numpy as np

from cmlr_edge import CmlrError, Recognizer

_MEMORY = 6 * 2**30  # of addresses, of which the threads of a runtime reserve most


def open_engine(path: Path) -> str:
    """What came of it: "loaded", the name of a typed error, or "untyped: ..." for any other."""
    try:
        with Recognizer.from_engine(path) as recognizer:
            prediction = recognizer(np.zeros((9, 7, 3), np.uint8))
            if len(prediction.scores) != len(recognizer.labels):
                return "untyped: another number of scores than labels"
    except CmlrError as error:
        return type(error).__name__ if str(error) else "untyped: an error without words"
    except Exception as error:  # noqa: BLE001 - whatever comes is what is counted
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"untyped: {type(error).__name__} in {where.name}: {str(error)[:200]}"
    return "loaded"


def main() -> None:
    """Answer lines with a path until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Native code prints to standard output when it likes: answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(open_engine(Path(line.rstrip("\n")))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
