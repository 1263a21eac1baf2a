"""Times of the attention kernels in CUDA graphs, beside torch's own in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.gpu.attention import Case, launcher, usual
from benchmarks.gpu.device import closing, import_cuda, import_torch, time_in_graph
from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place
from cmlr_edge.backends.cuda_memory import Stream

_SIZES = ((80, 49, 256, 8), (80, 196, 256, 8), (80, 784, 256, 8), (600, 784, 512, 8))
_BATCHES = (1, 8, 64, 256)
CASES = [
    *(Case("float16", batch, *sizes) for sizes in _SIZES for batch in _BATCHES),
    *(Case("float32", 1, *sizes) for sizes in _SIZES),
]
# Compilation takes seconds for each; the GPU is full of the larger.
COMPILED = [case for case in CASES if case.batch in {1, 64} and case.element == "float16"]
BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")
_REPEATS = 20
_WARM_S = 1.0


def measure(report: Report, _: Place) -> None:
    """Our kernel, and where torch is there its four backends, and torch.compile.

    One after the other, what matters first: the stage may be ended at its limit.
    """
    cuda = import_cuda()
    _warm_up(cuda)
    for case in CASES:
        report.check(f"cmlr, {case.name}", partial(of_ours, cuda, case), measures=True)
    again = f"cmlr, {CASES[0].name}, once more"  # what it differs by is noise
    report.check(again, partial(of_ours, cuda, CASES[0]), measures=True)
    for cases, names in ((CASES, BACKENDS), (COMPILED, ("compiled",))):
        for case in cases:
            for name in names if case.element == "float16" else ():
                work = partial(of_torch, case, name)
                report.check(f"torch {name}, {case.name}", work, measures=True)


def _warm_up(cuda: Any) -> None:
    """The clock of an idle GPU is low, and rises while there is work."""
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        launch, started = launcher(cuda, usual(), stack, stream), time.perf_counter()
        while time.perf_counter() < started + _WARM_S:
            launch()
            stream.synchronize()


def of_ours(cuda: Any, case: Case) -> str:
    """Microseconds of a launch, and operations a second."""
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        return _said(case, time_in_graph(launcher(cuda, case, stack, stream), stream))


def _said(case: Case, microseconds: float) -> str:
    operations = 4 * case.batch * case.queries * case.tokens * case.dim
    return f"{microseconds:.2f} us; {operations / microseconds / 1e6:.3f} TFLOP/s"


def of_torch(case: Case, backend: str) -> str:
    """The same of `scaled_dot_product_attention`, queries spread over the batch.

    Raises:
        Skipped: torch, or the backend for this case, is not there.
    """
    torch = import_torch()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    width = case.dim // case.num_heads
    rows = (case.queries, case.tokens, case.tokens)
    query, key, value = (
        torch.randn(case.batch, case.num_heads, n, width, device="cuda", dtype=torch.float16)
        for n in rows
    )
    attend: Callable[..., Any] = torch.nn.functional.scaled_dot_product_attention
    if backend == "compiled":
        torch.compiler.reset()  # for this size alone: else later ones run code for any size
        compiled = torch.compile(_plain_attention, dynamic=False)
        return _said(case, _time_torch(torch, compiled, query, key, value))
    with sdpa_kernel(getattr(SDPBackend, backend)):
        try:
            attend(query, key, value)
        except RuntimeError as error:
            raise Skipped(
                f"torch has none for this: {' '.join(str(error).split())[:120]}"
            ) from error
        return _said(case, _time_torch(torch, attend, query, key, value))


def _plain_attention(query: Any, key: Any, value: Any) -> Any:
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(-1) @ value


def _time_torch(torch: Any, work: Callable[..., Any], *tensors: Any) -> float:
    """Mean microseconds, many calls in one CUDA graph, as `time_in_graph` does it."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            work(*tensors)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_REPEATS):
            work(*tensors)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    begin.record()
    for _ in range(_REPEATS):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end) * 1e3 / _REPEATS**2)
