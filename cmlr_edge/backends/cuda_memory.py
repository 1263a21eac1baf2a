"""CUDA memory, streams and graphs through cuda-python: the only module that imports `cuda`."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cmlr_edge.errors import EngineError
from cmlr_edge.machine.needed import needed


def import_cudart() -> Any:
    """Return `cuda.bindings.runtime`.

    Raises:
        DependencyError: It is not installed.
    """
    remedy = "pip install 'cuda-bindings==12.*' on JetPack 6, 'cuda-bindings==13.*' on JetPack 7"
    with needed("cuda-python is needed and cannot be imported", remedy):
        from cuda.bindings import runtime
    return runtime


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call into CUDA.

    Returns:
        What it gives besides its status: nothing, one value, or a tuple.

    Raises:
        EngineError: CUDA gave an error; its name is in the message.
    """
    status, *results = function(*arguments)
    if int(status) != 0:
        raise EngineError(f"{function.__name__} failed: {getattr(status, 'name', status)}")
    if len(results) < 2:
        return results[0] if results else None
    return tuple(results)


@contextmanager
def on_first_gpu() -> Generator[None]:
    """Inside, the work of this thread is for the GPU that `find_gpu` describes.

    Each thread has a GPU of its own choice, which is the first unless the program around us, or another
    library, has chosen another.
    """
    cudart = import_cudart()
    status, before = cudart.cudaGetDevice()
    if int(status) != 0 or before == 0:  # where CUDA has failed, the work itself says so
        yield
        return
    cudart.cudaSetDevice(0)
    try:
        yield
    finally:
        cudart.cudaSetDevice(before)


class Stream:
    """A CUDA stream; close it.

    It does not wait for the default stream, nor that one for it: while a stream that does is captured,
    whatever anybody puts on the default stream is refused, and ends the capture.
    """

    def __init__(self) -> None:
        """Create it."""
        self._cudart = cudart = import_cudart()
        flags = cudart.cudaStreamNonBlocking
        self._stream: Any = call(cudart.cudaStreamCreateWithFlags, flags)

    @property
    def handle(self) -> int:
        """The address of the stream, as TensorRT wants it."""
        return int(self._stream)

    def synchronize(self) -> None:
        """Wait until everything on the stream is done."""
        call(self._cudart.cudaStreamSynchronize, self._stream)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` puts on the stream, which does not run.

        Raises:
            EngineError: It cannot be captured; the stream can be used as before.
        """
        cudart = self._cudart
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(cudart.cudaStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BaseException:
            with suppress(EngineError):  # that which says why is on its way
                call(cudart.cudaGraphDestroy, call(cudart.cudaStreamEndCapture, self._stream))
            raise
        return Graph(cudart, call(cudart.cudaStreamEndCapture, self._stream), self._stream)

    def close(self) -> None:
        """Destroy it. Calling it twice is harmless."""
        if self._stream is not None:
            call(self._cudart.cudaStreamDestroy, self._stream)
            self._stream = None


class Graph:
    """What was captured, to be run as one; close it before its stream."""

    def __init__(self, cudart: Any, graph: Any, stream: Any) -> None:
        """Take over a captured graph."""
        self._cudart, self._stream = cudart, stream
        try:
            self._graph: Any = call(cudart.cudaGraphInstantiate, graph, 0)
        finally:
            call(cudart.cudaGraphDestroy, graph)

    def launch(self) -> None:
        """Put it on its stream."""
        call(self._cudart.cudaGraphLaunch, self._graph, self._stream)

    def close(self) -> None:
        """Destroy it. Calling it twice is harmless."""
        if self._graph is not None:
            call(self._cudart.cudaGraphExecDestroy, self._graph)
            self._graph = None


class MirroredArray:
    """An array twice: pinned on the host, where copies are quick, and on the device."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """Allocate both; the host's is zero."""
        self._cudart = import_cudart()
        self._bytes_per_row = math.prod(shape[1:]) * np.dtype(dtype).itemsize
        size = shape[0] * self._bytes_per_row
        self._pinned: Any = call(self._cudart.cudaMallocHost, size)
        try:
            self._device: Any = call(self._cudart.cudaMalloc, size)
        except EngineError:
            call(self._cudart.cudaFreeHost, self._pinned)
            raise
        memory = (ctypes.c_uint8 * size).from_address(int(self._pinned))
        self.host: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        self.host[:] = 0

    @property
    def address(self) -> int:
        """Of the device's memory."""
        return int(self._device)

    def address_of(self, row: int) -> int:
        """Of a row in the device's memory."""
        return self.address + row * self._bytes_per_row

    def upload(self, rows: int, stream: Stream, *, first: int = 0) -> None:
        """Copy so many rows to the device, some time later; by then the host's must be as they are."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        host = int(self._pinned) + first * self._bytes_per_row
        self._copy(self.address_of(first), host, rows, kind, stream)

    def download(self, rows: int, stream: Stream) -> None:
        """Copy the first rows to the host, some time later."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(int(self._pinned), self.address, rows, kind, stream)

    def _copy(self, to: int, source: int, rows: int, kind: Any, stream: Stream) -> None:
        size = rows * self._bytes_per_row
        call(self._cudart.cudaMemcpyAsync, to, source, size, kind, stream.handle)

    def close(self) -> None:
        """Free both. Calling it twice is harmless; `host` must not be used after."""
        if self._device is not None:
            self.host = np.empty(0, np.uint8)
            device, pinned, self._device, self._pinned = self._device, self._pinned, None, None
            with ExitStack() as stack:  # the second also where the first fails
                stack.callback(call, self._cudart.cudaFreeHost, pinned)
                stack.callback(call, self._cudart.cudaFree, device)
