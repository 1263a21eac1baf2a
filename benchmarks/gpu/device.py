"""Memory and clocks of the GPU, as the stages use them; nothing needs more than cuda-python."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.report import Skipped
from cmlr_edge.backends.cuda_memory import MirroredArray, Stream, call, import_cudart
from cmlr_edge.errors import DependencyError

LAUNCHES, REPLAYS = 20, 20  # of a graph, and of that graph between two events


def import_cuda() -> Any:
    """Return `cmlr_edge._cuda`.

    Raises:
        DependencyError: Neither stage 1 nor this installation compiled it.
    """
    try:
        from cmlr_edge import _cuda
    except ImportError as error:
        raise DependencyError(
            f"there is no CUDA module ({error}): run stage 1 first, or install with "
            "`pip install . -C cmake.define.CMLR_CUDA=ON`"
        ) from error
    return _cuda


def import_torch() -> Any:
    """Return torch.

    Raises:
        Skipped: It is not installed, or cannot use this GPU.
    """
    try:
        import torch
    except ImportError as error:
        raise Skipped("torch is not installed") from error
    if not torch.cuda.is_available():
        raise Skipped("torch was built without CUDA, or not for this driver")
    return torch


class DeviceMemory:
    """Bytes on the GPU alone; close it."""

    def __init__(self, size: int, *, value: int = 0) -> None:
        """Allocate, and set every byte to `value`, which is done when this returns."""
        self._cudart = import_cudart()
        self.size, self.address = size, int(call(self._cudart.cudaMalloc, size))
        call(self._cudart.cudaMemset, self.address, value, size)
        call(self._cudart.cudaDeviceSynchronize)  # our streams do not wait for the default one

    def close(self) -> None:
        """Free it."""
        call(self._cudart.cudaFree, self.address)

    def write_rows(self, offset: int, pitch: int, rows: NDArray[Any]) -> None:
        """Put rows (R, bytes) `pitch` bytes apart, from a byte on."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        width, source = rows.strides[0], rows.ctypes.data
        to = self.address + offset
        call(self._cudart.cudaMemcpy2D, to, pitch, source, width, width, len(rows), kind)
        call(self._cudart.cudaDeviceSynchronize)  # it may return before the last byte is there

    def read_rows(self, offset: int, pitch: int, rows: NDArray[Any]) -> None:
        """Fill rows (R, bytes) that lie `pitch` bytes apart, from a byte on."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        width, to = rows.strides[0], rows.ctypes.data
        source = self.address + offset
        call(self._cudart.cudaMemcpy2D, to, width, source, pitch, width, len(rows), kind)


def closing(stack: ExitStack, resource: Any) -> Any:
    """Let `stack` close it."""
    stack.callback(resource.close)
    return resource


def uploaded(stack: ExitStack, array: NDArray[Any], stream: Stream) -> MirroredArray:
    """The array on the device."""
    mirrored: MirroredArray = closing(stack, MirroredArray(array.shape, array.dtype))
    mirrored.host[:] = array
    mirrored.upload(len(array), stream)
    return mirrored


def time_in_graph(launch: Callable[[], None], stream: Stream) -> float:
    """Mean microseconds of a launch, many of them in one CUDA graph: without the host's share."""
    launch()
    stream.synchronize()

    def all_of_them() -> None:
        for _ in range(LAUNCHES):
            launch()

    graph = stream.capture(all_of_them)
    try:
        return time_between_events(graph.launch, stream, REPLAYS) / LAUNCHES
    finally:
        graph.close()


def time_between_events(work: Callable[[], None], stream: Stream, repeats: int) -> float:
    """Mean microseconds of what `work` puts on the stream."""
    cudart = import_cudart()
    events = [call(cudart.cudaEventCreate) for _ in range(2)]
    for _ in range(3):
        work()
    call(cudart.cudaEventRecord, events[0], stream.handle)
    for _ in range(repeats):
        work()
    call(cudart.cudaEventRecord, events[1], stream.handle)
    call(cudart.cudaEventSynchronize, events[1])
    milliseconds: float = call(cudart.cudaEventElapsedTime, *events)
    for event in events:
        call(cudart.cudaEventDestroy, event)
    return milliseconds * 1e3 / repeats


def memory_in_use() -> tuple[int, int]:
    """Bytes that this process holds, and that are taken on the GPU."""
    lines = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    free, total = call(import_cudart().cudaMemGetInfo)
    return resident, total - free


def free_bytes() -> int:
    """Of the GPU's memory."""
    return int(call(import_cudart().cudaMemGetInfo)[0])


def poison(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """What no kernel writes: every bit set, which is NaN in floats."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.full(size, 0xFF, np.uint8).view(dtype).reshape(shape)
