"""What a test wants to know of engines on the made-up GPU, as JSON; started with its environment."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge import CmlrError, Recognizer
from cmlr_edge.backends.tensorrt import TensorRtBackend
from cmlr_edge.engines.opening import fit_checks
from cmlr_edge.engines.preflight import machine_checks
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec


def frames_of(number: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (number, 24, 32, 3), np.uint8)


def means(frames: Any) -> Any:
    return frames.reshape(len(frames), 24 * 32, 3).mean(axis=1) / 255


def open_backend(path: Path, **options: Any) -> TensorRtBackend:
    built = ModelSpec.load(spec_path(path)).files[path.name]
    assert built.engine is not None
    return TensorRtBackend(path, path.read_bytes(), built.engine, **options)


def recognize(path: Path) -> Any:
    image = frames_of(1)[0]
    with Recognizer.from_engine(path) as recognizer:
        scores = recognizer(image, color="rgb").scores
        return {"runtime": recognizer.runtime, "error": abs(scores - means(image[None])[0]).max()}


def rebuild(path: Path) -> Any:
    Recognizer.from_engine(path, rebuild=True).close()
    return dataclasses.asdict(ModelSpec.load(spec_path(path)).files[path.name].parity)


def find(path: Path) -> Any:
    built = ModelSpec.load(spec_path(path)).files[path.name]
    found = fit_checks(path, path.read_bytes(), built)
    alone = {check.name: check.state for check in machine_checks()}
    return {"engine": [{"what": c.name, "state": c.state} for c in found], "alone": alone}


def batches(path: Path) -> Any:
    """Largest error over batches of many sizes, with and without a CUDA graph."""
    from cuda.bindings import runtime

    errors, replayed = [], []
    for cuda_graph in (False, True):
        backend = open_backend(path, cuda_graph=cuda_graph)
        for number in (1, 1, 1, 3, 8, 20, 1, 1, 2, 2, 2, 0):
            frames = frames_of(number)
            errors.append(np.abs(backend.infer(frames) - means(frames)).max(initial=0))
        replayed.append(runtime.launched_graphs)
        backend.close()
        backend.close()
    leaked = [len(x) for x in (runtime.memory, runtime.streams, runtime.graphs)]
    return {"error": float(max(errors)), "replayed": replayed, "leaked": leaked}


def threads(path: Path) -> Any:
    backend, errors = open_backend(path), []

    def work(seed: int) -> None:
        for _ in range(50):
            frames = np.full((2, 24, 32, 3), seed, np.uint8)
            errors.append(float(np.abs(backend.infer(frames) - seed / 255).max()))

    running = [threading.Thread(target=work, args=(seed,)) for seed in (10, 200, 90)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    backend.close()
    return {"error": max(errors), "number": len(errors)}


def main(what: str, path: str) -> None:
    try:
        known = (recognize, rebuild, find, batches, threads)
        answer = {function.__name__: function for function in known}[what](Path(path))
    except CmlrError as error:
        answer = {"kind": type(error).__name__, "message": str(error)}
    print(json.dumps(answer, default=float))


if __name__ == "__main__":
    main(*sys.argv[1:])
