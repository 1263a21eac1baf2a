"""The SDK's streams, graphs and memory on a real GPU: `cmlr_edge.backends.cuda_memory`."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks.gpu.attention import launcher, usual
from benchmarks.gpu.device import closing, import_cuda, memory_in_use
from benchmarks.gpu.report import Report
from benchmarks.gpu.stage import Place
from cmlr_edge.backends.cuda_memory import MirroredArray, Stream, call, import_cudart
from cmlr_edge.errors import EngineError

REPLAYS, THREADS = 10_000, 4
_ALLOWED_GROWTH = 16 * 2**20  # bytes, of the process and of what is taken on the GPU
_BYTES = 2**20


def check(report: Report, _: Place) -> None:
    """Copies there and back, graphs, what cannot be captured, threads, and what is left behind."""
    report.check("a stream's copies are in order", copies_in_order)
    report.check("what cannot be captured leaves the stream as it was", falls_back)
    report.check("graphs of the attention kernel, in threads", replay_in_threads)
    report.check("memory over 10,000 replays", watch_memory)
    report.check("streams and arrays that come and go", come_and_go)


def copies_in_order() -> str:
    """Upload, download, many times over, in one graph.

    Raises:
        EngineError: Something else comes back.
    """
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        array = closing(stack, MirroredArray((_BYTES,), np.uint8))

        def there_and_back() -> None:
            array.upload(_BYTES, stream)
            array.download(_BYTES, stream)

        graph = closing(stack, stream.capture(there_and_back))
        for number in range(100):
            array.host[:] = number
            graph.launch()
            stream.synchronize()
            if not (array.host == number).all():
                raise EngineError(f"replay {number} came back as {array.host[0]}")
    return "100 replays"


def falls_back() -> str:
    """A wait inside a capture is refused by CUDA; the stream works on.

    Raises:
        EngineError: It was captured, or the stream does not work.
    """
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        array = closing(stack, MirroredArray((_BYTES,), np.uint8))
        try:
            stream.capture(stream.synchronize)
        except EngineError as error:
            said = str(error)
        else:
            raise EngineError("a wait was captured")
        array.host[:] = 7
        array.upload(_BYTES, stream)
        stream.synchronize()
        array.host[:] = 0
        array.download(_BYTES, stream)
        stream.synchronize()
        if not (array.host == 7).all():
            raise EngineError("the stream does not work any more")
    return said


def replay_in_threads() -> str:
    """Threads capture and replay at once, each on its stream.

    Raises:
        EngineError: One of them failed.
    """
    cuda, failures = import_cuda(), []

    def work() -> None:
        try:
            with ExitStack() as stack:
                stream = closing(stack, Stream())
                launch = launcher(cuda, usual(), stack, stream)
                launch()
                graph = closing(stack, stream.capture(launch))
                for _ in range(REPLAYS // THREADS):
                    graph.launch()
                stream.synchronize()
        except (EngineError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise EngineError(f"{len(failures)} of {THREADS} threads failed: {failures[0]}")
    return f"{THREADS} threads, {REPLAYS // THREADS} replays each"


def watch_memory() -> str:
    """Growth over many replays.

    Raises:
        EngineError: It is more than 16 MiB.
    """
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        launch = launcher(import_cuda(), usual(), stack, stream)
        launch()
        graph = closing(stack, stream.capture(launch))
        for _ in range(REPLAYS // 10):
            graph.launch()
        stream.synchronize()
        before = memory_in_use()
        for _ in range(REPLAYS):
            graph.launch()
        stream.synchronize()
        return _growth(before)


def come_and_go() -> str:
    """Growth over many streams, arrays and graphs that are made and closed.

    Raises:
        EngineError: It is more than 16 MiB.
    """
    before = (0, 0)
    for number in range(220):
        if number == 20:
            before = memory_in_use()
        with ExitStack() as stack:
            stream = closing(stack, Stream())
            array = closing(stack, MirroredArray((_BYTES,), np.uint8))
            graph = closing(stack, stream.capture(partial(array.upload, _BYTES, stream)))
            graph.launch()
            stream.synchronize()
    call(import_cudart().cudaDeviceSynchronize)
    return _growth(before)


def _growth(before: tuple[int, int]) -> str:
    growth = [after - start for after, start in zip(memory_in_use(), before, strict=True)]
    text = f"process {growth[0] >> 10} KiB, GPU {growth[1] >> 10} KiB more"
    if max(growth) > _ALLOWED_GROWTH:
        raise EngineError(text)
    return text
