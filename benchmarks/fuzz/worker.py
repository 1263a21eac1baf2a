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
from itertools import islice
from pathlib import Path

import numpy as np

from cmlr_edge import CmlrError, Recognizer, open_source
from cmlr_edge.session import load_config

_PROVIDERS = {".onnx": "cpu"}  # not measured first which is the fastest
_FRAMES = 200  # of a damaged video, which may repeat its frames for ever
_MEMORY = 6 * 2**30  # of addresses, of which the threads of a runtime reserve most


def open_engine(path: Path) -> str:
    """Open a model and recognise a picture with it; "loaded", or what is wrong."""
    with Recognizer.from_engine(path, provider=_PROVIDERS.get(path.suffix)) as recognizer:
        prediction = recognizer(np.zeros((9, 7, 3), np.uint8))
        if len(prediction.scores) != len(recognizer.labels):
            return "untyped: another number of scores than labels"
    return "loaded"


def read_other(path: Path) -> str:
    """Read a configuration, training data, a picture or a video to its end."""
    if path.suffix == ".toml":
        load_config(path)
    elif path.suffix == ".json":
        from train.data import read_dataset  # takes its time

        read_dataset(path.parent if path.name == "labels.json" else path.parents[1])
    else:
        with open_source(path) as source:
            for _ in islice(source, _FRAMES):
                pass
    return "loaded"


def outcome_of(path: Path) -> str:
    """What came of it: "loaded", the name of a typed error, or "untyped: ..." for any other."""
    is_model = path.suffix in {".onnx", ".engine"}
    try:
        return (open_engine if is_model else read_other)(path)
    except CmlrError as error:
        return type(error).__name__ if str(error) else "untyped: an error without words"
    except Exception as error:  # noqa: BLE001 - whatever comes is what is counted
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"untyped: {type(error).__name__} in {where.name}: {str(error)[:200]}"


def main() -> None:
    """Answer lines with a path until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Native code prints to standard output when it likes: answers go to a copy of it.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(outcome_of(Path(line.rstrip("\n")))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
