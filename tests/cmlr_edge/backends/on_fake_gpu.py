"""What a test wants to know of engines on the made-up GPU, as JSON; started with its environment."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge import CmlrError, Recognizer
from cmlr_edge.backends import load_backend
from cmlr_edge.backends.tensorrt import TensorRtBackend
from cmlr_edge.engines.opening import fit_checks
from cmlr_edge.engines.preflight import machine_checks
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import EngineBuild, ModelSpec


def frames_of(number: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (number, 24, 32, 3), np.uint8)


def means(frames: Any) -> Any:
    return frames.reshape(len(frames), 24 * 32, 3).mean(axis=1) / 255


def built(path: Path) -> EngineBuild:
    engine = ModelSpec.load(spec_path(path)).files[path.name].engine
    assert engine is not None
    return engine


def open_backend(path: Path, **options: Any) -> TensorRtBackend:
    return TensorRtBackend(path, path.read_bytes(), built(path), **options)


def recognize(path: Path) -> Any:
    image = frames_of(1)[0]
    with Recognizer.from_engine(path) as recognizer:
        scores = recognizer(image, color="rgb").scores
        return {"runtime": recognizer.runtime, "error": abs(scores - means(image[None])[0]).max()}


def rebuild(path: Path) -> Any:
    Recognizer.from_engine(path, rebuild=True).close()
    return dataclasses.asdict(ModelSpec.load(spec_path(path)).files[path.name].parity)


def find(path: Path) -> Any:
    file = ModelSpec.load(spec_path(path)).files[path.name]
    found = fit_checks(path, path.read_bytes(), file)
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
    return {"error": float(max(errors)), "replayed": replayed, "leaked": left()}


def explain(path: Path) -> Any:
    """Largest errors of an engine that explains, by output, and shapes; then scores alone again."""
    from tests.explained_engine import parts_of, scores_of

    backend, errors = open_backend(path, cuda_graph=True), {"plain": 0.0}
    for number in (1, 3, 8, 20, 1, 1, 1):
        frames = frames_of(number)
        expected = {**parts_of(frames), "scores": scores_of(frames)}
        found = backend.explain(frames)
        for name, array in expected.items():
            worst = float(np.abs(found[name] - array).max())
            errors[name] = max(errors.get(name, 0.0), worst)
        plain = float(np.abs(backend.infer(frames) - expected["scores"]).max())
        errors["plain"] = max(errors["plain"], plain)
    backend.close()
    return {"errors": errors, "map": found["attention"].shape, "leaked": left()}


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


def left() -> list[int]:
    """Blocks of memory, streams and graphs that nobody freed."""
    from cuda.bindings import runtime

    return [len(x) for x in (runtime.memory, runtime.streams, runtime.graphs)]


def not_captured(path: Path) -> Any:
    """Batches where a graph cannot be ended, made to run, or launched."""
    from cuda.bindings import runtime

    failed = runtime.cudaError_t.cudaErrorLaunchFailure
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("cmlr_edge.backends.tensorrt").addHandler(handler)

    def end_without_graph(stream: int) -> Any:
        del runtime.capturing[stream]
        return failed, 0

    answer: dict[str, Any] = {}
    for name, fake in {
        "cudaStreamEndCapture": end_without_graph,
        "cudaStreamBeginCapture": lambda *_: (failed,),
        "cudaGraphInstantiate": lambda *_: (failed, 0),
        "cudaGraphLaunch": lambda *_: (failed,),
    }.items():
        said.clear()
        real = getattr(runtime, name)
        fake.__name__ = name
        setattr(runtime, name, fake)
        backend = load_backend(path, path.read_bytes(), provider="cuda-graph", engine=built(path))
        before = backend.provider
        errors = [
            float(np.abs(backend.infer(frames_of(n)) - means(frames_of(n))).max())
            for n in (1, 1, 1, 2, 2, 2)
        ]
        backend_after = backend.provider
        backend.close()
        setattr(runtime, name, real)
        answer[name] = {
            "error": max(errors), "provider": [before, backend_after], "said": [*said],
            "left": left(),
        }  # fmt: skip
    return answer


def no_memory(path: Path) -> Any:
    """Lanes for which the first, second, ... allocation fails, and one for which none does."""
    from cuda.bindings import runtime

    backend, real = open_backend(path), runtime._allocate
    answer: list[Any] = []
    for allowed in range(5):
        remaining = iter(range(allowed))

        def allocate(size: int, remaining: Any = remaining) -> Any:
            if next(remaining, None) is None:
                return runtime.cudaError_t.cudaErrorMemoryAllocation, 0
            return real(size)

        runtime._allocate = allocate
        try:
            backend.infer(frames_of(1))
            answer.append("works")
        except CmlrError as error:
            answer.append([str(error), *left()])
    runtime._allocate = real
    backend.close()
    return {"found": answer, "left": left()}


def many_threads(path: Path) -> Any:
    """Memory after the golden test's thread, and after twenty threads one after the other."""
    backend = open_backend(path)
    backend.infer(frames_of(1))
    before = left()
    for _ in range(20):
        thread = threading.Thread(target=backend.infer, args=(frames_of(2),))
        thread.start()
        thread.join()
    after = left()
    backend.close()
    return {"before": before, "after": after, "left": left()}


def broken_gpu(path: Path) -> Any:
    """Closing after the GPU failed: everything is given back all the same."""
    from cuda.bindings import runtime

    backend = open_backend(path)
    backend.infer(frames_of(1))
    real, failed = runtime.cudaStreamSynchronize, runtime.cudaError_t.cudaErrorLaunchFailure

    def failed_synchronize(_: int) -> Any:
        return (failed,)

    runtime.cudaStreamSynchronize = failed_synchronize
    free = runtime.cudaFree
    runtime.cudaFree = lambda address: (free(address)[0] or failed,)
    failures: list[str] = []
    try:
        backend.infer(frames_of(1))
    except CmlrError as error:
        failures.append(str(error))
    backend.close()
    runtime.cudaStreamSynchronize, runtime.cudaFree = real, free
    return {"failures": failures, "left": left()}


def replaced(path: Path) -> Any:
    """A reload: the new engine is opened before the old one is closed; then one that is damaged."""
    old = open_backend(path)
    new = open_backend(path)
    old.close()
    del old
    gc.collect()
    frames = frames_of(2)
    error = float(np.abs(new.infer(frames) - means(frames)).max())
    try:
        TensorRtBackend(path, b"not an engine", built(path))
    except CmlrError as refused:
        return {"error": error, "said": str(refused)}
    return {"error": error, "said": "nothing"}


def on_another_gpu(path: Path) -> Any:
    """The program has chosen another GPU in this thread, and none in the one that it starts."""
    from cuda.bindings import runtime

    runtime.cudaSetDevice(1)
    backend, frames, errors = open_backend(path), frames_of(2), []

    def work() -> None:
        errors.append(float(np.abs(backend.infer(frames) - means(frames)).max()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    backend.close()
    return {"errors": errors, "chosen": runtime.cudaGetDevice()[1], "left": left()}


def beside_the_default_stream(path: Path) -> Any:
    """Somebody puts work on the default stream while ours is captured: torch, or another engine."""
    from cuda.bindings import runtime

    status, real = [], runtime.cudaStreamEndCapture

    def end_after_work_of_others(stream: int) -> Any:
        status.extend(runtime.cudaMemset(0, 0, 0))
        return real(stream)

    end_after_work_of_others.__name__ = "cudaStreamEndCapture"
    runtime.cudaStreamEndCapture = end_after_work_of_others
    backend, frames = open_backend(path, cuda_graph=True), frames_of(1)
    errors = [float(np.abs(backend.infer(frames) - means(frames)).max()) for _ in range(3)]
    provider = backend.provider
    backend.close()
    return {"errors": errors, "provider": provider, "others": [s.name for s in status]}


def main(what: str, path: str) -> None:
    try:
        known = (
            *(recognize, rebuild, find, batches, explain, threads),
            *(not_captured, no_memory, many_threads, broken_gpu),
            *(replaced, on_another_gpu, beside_the_default_stream),
        )
        answer = {function.__name__: function for function in known}[what](Path(path))
    except CmlrError as error:
        answer = {"kind": type(error).__name__, "message": str(error)}
    print(json.dumps(answer, default=float))


if __name__ == "__main__":
    main(*sys.argv[1:])
