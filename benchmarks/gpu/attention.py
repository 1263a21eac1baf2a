"""The attention kernels on a real GPU, against their formula in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.device import (
    DeviceMemory,
    closing,
    free_bytes,
    import_cuda,
    poison,
    uploaded,
)
from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place
from cmlr_edge.backends.cuda_memory import MirroredArray, Stream
from cmlr_edge.errors import EngineError

TOLERANCE = {"float32": 1e-5, "float16": 2e-3}  # on data of unit variance
# attention.cu chooses by the number of keys: the last of each kernel, and its neighbours.
_LAST = (16, 32, 48, 64, 96, 128, 192, 256)
TOKENS = sorted({1, 300, 784, *(n + i for n in _LAST for i in (-1, 0, 1))})
BATCHES = ((1, 1, 1), (1, 2, 2), (2, 1, 1), (1, 1, 2), (2, 2, 2))
_FAR_HEADS, _FAR_ROWS, _FAR_WIDTH = 65535, 600, 64


@dataclass(frozen=True)
class Case:
    """One launch; constant queries, as in the label decoder, unless `batches` says otherwise."""

    element: str
    batch: int
    queries: int
    tokens: int
    dim: int
    num_heads: int
    batches: tuple[int, int, int] | None = None  # of query, key, value
    special: str = ""  # see SPECIALS, or "bias"

    @property
    def name(self) -> str:
        """For the table."""
        sizes = f"B={self.batch} L={self.queries} T={self.tokens} d={self.dim}"
        return f"{self.element}, {sizes}, {self.num_heads} heads"

    @property
    def inputs(self) -> tuple[int, int, int]:
        """Batches of query, key and value."""
        return self.batches or (1, self.batch, self.batch)


SPECIALS = ("bias", "masked", "all masked", "key NaN", "masked value NaN", "score infinite")


@dataclass
class Launch:
    """A case on the device, ready to be enqueued on any stream."""

    case: Case
    cuda: Any
    arrays: dict[str, MirroredArray]

    def __call__(self, stream: Stream, out: MirroredArray | None = None) -> None:
        """Enqueue it."""
        case, arrays = self.case, self.arrays
        bias = arrays.get("key_bias")
        self.cuda.attention(
            element=case.element,
            **{name: arrays[name].address for name in ("query", "key", "value")},
            key_bias=bias.address if bias else 0,
            out=(out or arrays["out"]).address,
            batches=case.inputs,
            queries=case.queries,
            tokens=case.tokens,
            dim=case.dim,
            num_heads=case.num_heads,
            scale=(case.dim / case.num_heads) ** -0.5,
            stream=stream.handle,
        )


def draw(case: Case) -> dict[str, NDArray[Any]]:
    """The inputs on the host, of unit variance, with what is special in the middle."""
    random, middle = np.random.default_rng(case.tokens), case.tokens // 2
    rows = (case.queries, case.tokens, case.tokens)
    found: dict[str, NDArray[Any]] = {
        name: random.standard_normal((batch, number, case.dim)).astype(case.element)
        for name, batch, number in zip(("query", "key", "value"), case.inputs, rows, strict=True)
    }
    if not case.special:
        return found
    bias = random.standard_normal(case.tokens).astype(np.float32)
    bias[middle] = {"masked": -np.inf, "masked value NaN": -np.inf, "score infinite": np.inf}.get(
        case.special, bias[middle]
    )
    if case.special == "all masked":
        bias[:] = -np.inf
    if case.special == "key NaN":
        found["key"][0, middle, 3] = np.nan
    if case.special == "masked value NaN":
        found["value"][0, middle, 3] = np.nan
    return {**found, "key_bias": bias}


def prepare(cuda: Any, case: Case, stack: ExitStack, stream: Stream) -> Launch:
    """Everything on the device; the output is poisoned, and one item longer than it is."""
    arrays = {name: uploaded(stack, array, stream) for name, array in draw(case).items()}
    shape = (case.batch + 1, case.queries, case.dim)
    arrays["out"] = uploaded(stack, poison(shape, case.element), stream)
    return Launch(case, cuda, arrays)


def difference(cuda: Any, case: Case) -> float:
    """Largest difference from the formula.

    Raises:
        EngineError: Something else was written, or NaN is not where the formula has it.
    """
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        launch = prepare(cuda, case, stack, stream)
        launch(stream)
        out = launch.arrays["out"]
        out.download(case.batch + 1, stream)
        stream.synchronize()
        if not np.isnan(out.host[-1]).all():
            raise EngineError(f"{case.name}: something is written behind the output")
        expected = formula(case, {name: array.host for name, array in launch.arrays.items()})
        actual = out.host[:-1].astype(np.float64)
    if (np.isnan(actual) != np.isnan(expected)).any():
        raise EngineError(
            f"{case.name} {case.special}: NaN where there is none, or none where it is"
        )
    return float(np.nan_to_num(np.abs(actual - expected)).max())


def compare(cuda: Any, *cases: Case) -> str:
    """Hold launches against the formula.

    Raises:
        EngineError: One differs by more than the tolerance.
    """
    worst = 0.0
    for case in cases:
        found = difference(cuda, case)
        if not found <= TOLERANCE[case.element]:
            raise EngineError(
                f"{case.name} {case.special}: differs by {found:.2g}, allowed "
                f"{TOLERANCE[case.element]:g}"
            )
        worst = max(worst, found)
    return f"{len(cases)} launches differ by {worst:.2g} at most"


def formula(case: Case, arrays: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """In float64: zeros where every key is masked, NaN where a score is NaN or infinite."""
    width = case.dim // case.num_heads
    query, key, value = (
        np.broadcast_to(x, (case.batch, *x.shape[1:]))
        .astype(np.float64)
        .reshape(case.batch, x.shape[1], case.num_heads, width)
        for x in (arrays["query"], arrays["key"], arrays["value"])
    )
    scores = np.einsum("blhw,bthw->bhlt", query, key, optimize=True) / math.sqrt(width)
    if "key_bias" in arrays:
        scores = scores + arrays["key_bias"].astype(np.float64)
    largest = scores.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - np.where(largest == -np.inf, 0, largest))
    total = weights.sum(axis=-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
    mixed = np.einsum("bhlt,bthw->blhw", weights, value, optimize=True)
    return mixed.reshape(case.batch, case.queries, case.dim)


def usual(element: str = "float16") -> Case:
    """A launch such as the SDK makes."""
    return Case(element, 2, 80, 196, 256, 8)


def check(report: Report, _: Place) -> None:
    """Every kernel at every boundary, batches, biases, masks, NaN, and equal bits."""
    cuda = import_cuda()
    for element in ("float32", "float16"):
        for width in (32, 64):
            cases = [Case(element, 1, 17, tokens, 2 * width, 2) for tokens in TOKENS]
            name = f"{element}, width {width}: {len(TOKENS)} numbers of keys"
            report.check(name, partial(compare, cuda, *cases))
        cases = [Case(element, max(b), 33, t, 128, 2, b) for b in BATCHES for t in (49, 300)]
        report.check(f"{element}: batches", partial(compare, cuda, *cases))
        for special in SPECIALS:
            cases = [Case(element, 1, 17, t, 64, 2, special=special) for t in (9, 70, 196, 300)]
            report.check(f"{element}: {special}", partial(compare, cuda, *cases))
        large = Case(element, 2, 600, 784, 512, 8)
        report.check(f"{element}: 600 labels", partial(compare, cuda, large))
        report.check(f"{element}: equal bits", partial(same_bits, cuda, usual(element)))


def same_bits(cuda: Any, case: Case, *, streams: int = 8) -> str:
    """Two launches one after the other, and one on each of many streams, end in the same bits.

    Raises:
        EngineError: They do not.
    """
    with ExitStack() as stack:
        first = closing(stack, Stream())
        launch = prepare(cuda, case, stack, first)
        first.synchronize()
        lanes = [first, first, *(closing(stack, Stream()) for _ in range(streams))]
        shape = launch.arrays["out"].host.shape
        outs = [uploaded(stack, poison(shape, case.element), stream) for stream in lanes]
        for _ in range(5):
            for stream, out in zip(lanes, outs, strict=True):
                launch(stream, out)
        for stream, out in zip(lanes, outs, strict=True):
            out.download(case.batch, stream)
            stream.synchronize()
        results = {out.host[: case.batch].tobytes() for out in outs}
    if len(results) != 1:
        raise EngineError(f"{len(lanes)} launches ended in {len(results)} different results")
    return f"{len(lanes)} launches, {streams} of them at once on streams of their own"


def check_far(report: Report, _: Place) -> None:
    """Rows that 32 bits cannot count to."""
    cuda = import_cuda()
    for element in ("float16", "float32"):
        report.check(f"{element}: the last head", partial(compare_far, cuda, element))


def compare_far(cuda: Any, element: str) -> str:
    """Tensors of 2.5e9 elements, zero but for the last head.

    Raises:
        EngineError: That head differs from the formula.
        Skipped: The GPU has too little memory.
    """
    rows, width = _FAR_ROWS, _FAR_WIDTH
    item = np.dtype(element).itemsize
    pitch = _FAR_HEADS * width * item
    size, offset = rows * pitch, pitch - width * item
    if free_bytes() < 4 * size + 2**30:
        raise Skipped(f"{4 * size >> 30} GiB of GPU memory are needed")
    case = Case(element, 1, rows, rows, width, 1)
    host = draw(case)
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        on_device = {name: closing(stack, DeviceMemory(size)) for name in ("query", "key", "value")}
        out = closing(stack, DeviceMemory(size, value=0xFF))
        for name, memory in on_device.items():
            memory.write_rows(offset, pitch, host[name][0])
        cuda.attention(
            element=element, **{name: memory.address for name, memory in on_device.items()},
            key_bias=0, out=out.address, batches=(1, 1, 1), queries=rows, tokens=rows,
            dim=_FAR_HEADS * width, num_heads=_FAR_HEADS, scale=width**-0.5, stream=stream.handle,
        )  # fmt: skip
        stream.synchronize()
        actual = np.empty((rows, width), element)
        out.read_rows(offset, pitch, actual)
    found = float(np.abs(actual - formula(case, host)[0]).max())
    if not found <= TOLERANCE[element]:
        raise EngineError(f"differs by {found:.2g}, allowed {TOLERANCE[element]:g}")
    return f"differs by {found:.2g}; {rows * _FAR_HEADS * width:.3g} elements a tensor"


def launcher(cuda: Any, case: Case, stack: ExitStack, stream: Stream) -> Callable[[], None]:
    """What puts the case on one stream."""
    launch = prepare(cuda, case, stack, stream)
    return lambda: launch(stream)
