"""The CUDA kernels on a real GPU: against formulas, and timed against what memory allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.cuda_memory import MirroredArray, Stream, call, import_cudart
from cmlr_edge.errors import DependencyError, EngineError
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess

TOLERANCE = {"float32": 1e-5, "float16": 2e-3}  # on data of unit variance
_WARM_UP, _REPEATS = 20, 200
_COPY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Case:
    """One launch; constant queries, as in the label decoder."""

    element: str
    batch: int
    queries: int
    tokens: int
    dim: int
    num_heads: int

    @property
    def name(self) -> str:
        """For the table."""
        sizes = f"B={self.batch} L={self.queries} T={self.tokens} d={self.dim}"
        return f"{self.element}, {sizes}, {self.num_heads} heads"


CASES = [
    Case(element, *sizes)
    for element in ("float32", "float16")
    for sizes in (
        (1, 80, 49, 256, 8), (1, 80, 196, 256, 8), (8, 80, 196, 256, 8),
        (1, 80, 784, 256, 8), (1, 600, 784, 512, 8), (1, 17, 33, 64, 2),
        (8, 80, 49, 256, 8), (1, 80, 80, 256, 8),
    )
]  # fmt: skip


def import_cuda() -> Any:
    """Return `cmlr_edge._cuda`.

    Raises:
        DependencyError: This installation was built without it.
    """
    try:
        from cmlr_edge import _cuda
    except ImportError as error:
        raise DependencyError(
            f"this installation has no CUDA module ({error}): install with "
            "`pip install . -C cmake.define.CMLR_CUDA=ON -C cmake.define.CMLR_TENSORRT=ON`"
        ) from error
    return _cuda


def compare(cuda: Any, case: Case) -> str:
    """Hold the kernel against the formula in float64.

    Raises:
        EngineError: It differs by more than the tolerance.
    """
    with ExitStack() as stack:
        launch, arrays, stream = _prepare(cuda, case, stack)
        launch()
        arrays["out"].download(case.batch, stream)
        stream.synchronize()
        expected = _formula(case, {name: array.host for name, array in arrays.items()})
        difference = float(np.abs(arrays["out"].host - expected).max())
    if not difference <= TOLERANCE[case.element]:
        raise EngineError(f"differs by {difference:.2g}, allowed {TOLERANCE[case.element]:g}")
    return f"differs by {difference:.2g}"


def measure(cuda: Any, case: Case) -> str:
    """Time the launch, and the same bytes at the speed at which this GPU copies memory."""
    with ExitStack() as stack:
        launch, arrays, stream = _prepare(cuda, case, stack)
        microseconds = time_on_gpu(launch, stream)
        moved = sum(array.host.nbytes for array in arrays.values())
        floor = moved / _copied_bytes_per_second(stack, stream) * 1e6
    operations = 4 * case.batch * case.queries * case.tokens * case.dim
    return (
        f"{microseconds:.1f} us; its {moved / 1e3:.0f} kB copied once: {floor:.1f} us; "
        f"{operations / microseconds / 1e6:.3f} TFLOP/s"
    )


def compare_frame(cuda: Any) -> str:
    """Hold the frame kernel against `preprocess`, and time it.

    Raises:
        EngineError: A pixel differs by more than one grey level.
    """
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    size_hw = (320, 320)
    expected = preprocess(image, PreprocessSpec(size_hw, (0.0,) * 3, (1.0,) * 3))
    with ExitStack() as stack:
        stream = _closing(stack, Stream())
        source = _closing(stack, MirroredArray(image.shape, np.uint8))
        result = _closing(stack, MirroredArray(expected.shape, np.uint8))
        source.host[:] = image
        source.upload(len(image), stream)

        def launch() -> None:
            cuda.resize_frame(
                format="bgr", pixels=source.address, chroma=0, size_hw=image.shape[:2],
                out=result.address, out_hw=size_hw, stream=stream.handle,
            )  # fmt: skip

        microseconds = time_on_gpu(launch, stream)
        result.download(size_hw[0], stream)
        stream.synchronize()
        difference = int(np.abs(result.host.astype(int) - expected).max())
    if difference > 1:
        raise EngineError(f"differs by {difference} grey levels, allowed 1")
    return f"differs by {difference} grey levels; 1920 x 1080 to 320 x 320 in {microseconds:.0f} us"


def time_on_gpu(launch: Callable[[], None], stream: Stream) -> float:
    """Mean microseconds between two events around many launches."""
    cudart = import_cudart()
    events = [call(cudart.cudaEventCreate) for _ in range(2)]
    for _ in range(_WARM_UP):
        launch()
    call(cudart.cudaEventRecord, events[0], stream.handle)
    for _ in range(_REPEATS):
        launch()
    call(cudart.cudaEventRecord, events[1], stream.handle)
    call(cudart.cudaEventSynchronize, events[1])
    milliseconds: float = call(cudart.cudaEventElapsedTime, *events)
    for event in events:
        call(cudart.cudaEventDestroy, event)
    return milliseconds * 1e3 / _REPEATS


def _closing(stack: ExitStack, resource: Any) -> Any:
    stack.callback(resource.close)
    return resource


def _prepare(
    cuda: Any, case: Case, stack: ExitStack
) -> tuple[Callable[[], None], dict[str, MirroredArray], Stream]:
    random, stream = np.random.default_rng(0), _closing(stack, Stream())
    shapes = {
        "query": (1, case.queries, case.dim),
        "key": (case.batch, case.tokens, case.dim),
        "value": (case.batch, case.tokens, case.dim),
        "out": (case.batch, case.queries, case.dim),
    }
    arrays = {n: _closing(stack, MirroredArray(s, case.element)) for n, s in shapes.items()}
    for array in list(arrays.values())[:3]:
        array.host[:] = random.standard_normal(array.host.shape)
        array.upload(len(array.host), stream)

    def launch() -> None:
        cuda.attention(
            element=case.element,
            **{name: array.address for name, array in arrays.items()},
            key_bias=0,
            batches=(1, case.batch, case.batch),
            queries=case.queries,
            tokens=case.tokens,
            dim=case.dim,
            num_heads=case.num_heads,
            scale=(case.dim / case.num_heads) ** -0.5,
            stream=stream.handle,
        )

    return launch, arrays, stream


def _formula(case: Case, arrays: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    query, key, value = (
        arrays[name].astype(np.float64).reshape(len(arrays[name]), -1, case.num_heads, _width(case))
        for name in ("query", "key", "value")
    )
    query = np.broadcast_to(query, (case.batch, *query.shape[1:]))
    scores = np.einsum("blhw,bthw->bhlt", query, key) / math.sqrt(_width(case))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("bhlt,bthw->blhw", weights, value)
    return mixed.reshape(case.batch, case.queries, case.dim)


def _width(case: Case) -> int:
    return case.dim // case.num_heads


def _copied_bytes_per_second(stack: ExitStack, stream: Stream) -> float:
    """Read and written by a copy from device to device."""
    cudart = import_cudart()
    kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    here, there = (_closing(stack, MirroredArray((_COPY_BYTES,), np.uint8)) for _ in range(2))
    work = (there.address, here.address, _COPY_BYTES, kind, stream.handle)
    microseconds = time_on_gpu(lambda: call(cudart.cudaMemcpyAsync, *work), stream)
    return 2 * _COPY_BYTES / microseconds * 1e6
