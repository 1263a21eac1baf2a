"""CUDA's runtime in the host's memory; a stream does nothing before it is waited for.

So a result that is read too early is not there yet, and memory that is freed is counted.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import os
import threading
import time
from collections.abc import Callable

memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
streams: dict[int, list[Callable[[], None]]] = {}
capturing: dict[int, list[Callable[[], None]] | None] = {}
blocking: set[int] = set()  # streams that wait for the default one, and it for them
default_stream: list[Callable[[], None]] = []  # what was put on it and is not done
device = threading.local()  # the GPU that a thread has chosen
graphs: dict[int, list[Callable[[], None]]] = {}
recorded_on: dict[int, int] = {}
times: dict[int, float] = {}
launched_graphs = 0


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidResourceHandle = 400
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorStreamCaptureImplicit = 906


class LaunchFailure(Exception):
    """Raised by work on a stream; whoever waits for the stream is given an error."""


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


_handles = itertools.count(4096, 8)


def put(stream: int, work: Callable[[], None]) -> None:
    """What a launch does: onto the stream, or into the graph that it captures."""
    (capturing[stream] if stream in capturing else streams[stream]).append(work)


def _allocate(size: int) -> tuple[cudaError_t, int]:
    if size > 10**9:
        return cudaError_t.cudaErrorMemoryAllocation, 0
    block = ctypes.create_string_buffer(b"\xff" * size, size)
    memory[ctypes.addressof(block)] = block
    return cudaError_t.cudaSuccess, ctypes.addressof(block)


def require_allocated(address: int, size: int) -> None:
    """Raises LaunchFailure where work reaches beyond what was allocated, or what was freed."""
    for begin, block in [*memory.items()]:
        if begin <= address and address + size <= begin + len(block):
            return
    raise LaunchFailure


def _put_on_default(work: Callable[[], object]) -> cudaError_t:
    """Some time later, and never while a stream that waits for it is captured."""
    if captured := blocking & {*capturing}:
        capturing.update(dict.fromkeys(captured))
        return cudaError_t.cudaErrorStreamCaptureImplicit
    default_stream.append(work)  # type: ignore[arg-type]
    return cudaError_t.cudaSuccess


def _do_default() -> None:
    waiting, default_stream[:] = [*default_stream], []
    for work in waiting:
        work()


def cudaMemset(address: int, value: int, size: int) -> tuple[cudaError_t]:
    return (_put_on_default(lambda: ctypes.memset(address, value, size)),)


def cudaRuntimeGetVersion() -> tuple[cudaError_t, int]:
    return cudaError_t.cudaSuccess, int(os.environ.get("FAKE_CUDART", "12060"))


def cudaGetDevice() -> tuple[cudaError_t, int]:
    return cudaError_t.cudaSuccess, getattr(device, "number", 0)


def cudaSetDevice(number: int) -> tuple[cudaError_t]:
    device.number = number
    return (cudaError_t.cudaSuccess,)


def cudaMemcpy2D(
    to: int, to_pitch: int, source: int, pitch: int, width: int, rows: int, kind: cudaMemcpyKind
) -> tuple[cudaError_t]:
    assert kind in cudaMemcpyKind
    _do_default()
    for row in range(rows):
        ctypes.memmove(to + row * to_pitch, source + row * pitch, width)
    return (cudaError_t.cudaSuccess,)


def cudaDeviceSynchronize() -> tuple[cudaError_t]:
    _do_default()
    return (cudaError_t.cudaSuccess,)


def cudaMalloc(size: int) -> tuple[cudaError_t, int]:
    return _allocate(size)


def cudaMallocHost(size: int) -> tuple[cudaError_t, int]:
    return _allocate(size)


def cudaFree(address: int) -> tuple[cudaError_t]:
    del memory[address]
    return (cudaError_t.cudaSuccess,)


def cudaFreeHost(address: int) -> tuple[cudaError_t]:
    return cudaFree(address)


cudaStreamNonBlocking = 1


def cudaStreamCreateWithFlags(flags: int) -> tuple[cudaError_t, int]:
    stream = next(_handles)
    streams[stream] = []
    if flags != cudaStreamNonBlocking:
        blocking.add(stream)
    return cudaError_t.cudaSuccess, stream


def cudaStreamCreate() -> tuple[cudaError_t, int]:
    return cudaStreamCreateWithFlags(0)


def cudaStreamDestroy(stream: int) -> tuple[cudaError_t]:
    del streams[stream]
    blocking.discard(stream)
    return (cudaError_t.cudaSuccess,)


def cudaStreamSynchronize(stream: int) -> tuple[cudaError_t]:
    if stream in capturing:
        capturing[stream] = None
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    if stream in blocking:
        _do_default()
    waiting, streams[stream] = streams[stream], []
    try:
        for work in waiting:
            work()
    except LaunchFailure:
        return (cudaError_t.cudaErrorLaunchFailure,)
    return (cudaError_t.cudaSuccess,)


def cudaMemcpyAsync(
    to: int, source: int, size: int, kind: cudaMemcpyKind, stream: int
) -> tuple[cudaError_t]:
    assert kind in cudaMemcpyKind

    def copy() -> None:
        require_allocated(to, size)
        require_allocated(source, size)
        ctypes.memmove(to, source, size)

    put(stream, copy)
    return (cudaError_t.cudaSuccess,)


def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:
    assert mode in cudaStreamCaptureMode
    capturing[stream] = []
    return (cudaError_t.cudaSuccess,)


def cudaStreamEndCapture(stream: int) -> tuple[cudaError_t, int]:
    captured = capturing.pop(stream)
    if captured is None:  # something could not be captured
        return cudaError_t.cudaErrorStreamCaptureInvalidated, 0
    graph = next(_handles)
    graphs[graph] = captured
    return cudaError_t.cudaSuccess, graph


def cudaGraphInstantiate(graph: int, flags: int) -> tuple[cudaError_t, int]:
    assert flags == 0
    executable = next(_handles)
    graphs[executable] = graphs[graph]
    return cudaError_t.cudaSuccess, executable


def cudaGraphLaunch(graph: int, stream: int) -> tuple[cudaError_t]:
    global launched_graphs  # noqa: PLW0603
    launched_graphs += 1
    streams[stream] += graphs[graph]
    return (cudaError_t.cudaSuccess,)


def cudaMemGetInfo() -> tuple[cudaError_t, int, int]:
    return cudaError_t.cudaSuccess, 8 * 10**9 - sum(map(len, memory.values())), 8 * 10**9


def cudaEventCreate() -> tuple[cudaError_t, int]:
    event = next(_handles)
    streams[event] = []
    return cudaError_t.cudaSuccess, event


def cudaEventRecord(event: int, stream: int) -> tuple[cudaError_t]:
    recorded_on[event] = stream
    put(stream, lambda: times.update({event: time.perf_counter()}))
    return (cudaError_t.cudaSuccess,)


def cudaEventSynchronize(event: int) -> tuple[cudaError_t]:
    return cudaStreamSynchronize(recorded_on[event])


def cudaEventElapsedTime(first: int, last: int) -> tuple[cudaError_t, float]:
    return cudaError_t.cudaSuccess, (times[last] - times[first]) * 1e3


def cudaEventDestroy(event: int) -> tuple[cudaError_t]:
    del recorded_on[event], times[event]
    return cudaStreamDestroy(event)


def cudaGraphDestroy(graph: int) -> tuple[cudaError_t]:
    del graphs[graph]
    return (cudaError_t.cudaSuccess,)


def cudaGraphExecDestroy(graph: int) -> tuple[cudaError_t]:
    return cudaGraphDestroy(graph)
