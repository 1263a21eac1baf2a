"""What machine this is, and what it can do at best."""

from __future__ import annotations

import platform
import shutil
import subprocess
from contextlib import ExitStack
from functools import partial

from benchmarks.gpu.device import (
    DeviceMemory,
    closing,
    import_torch,
    time_between_events,
    time_in_graph,
)
from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place
from cmlr_edge.backends.cuda_memory import Stream, call, import_cudart
from cmlr_edge.machine.facts import board_name, runtime_versions

COPY_BYTES = 2 * 2**30  # many times the L2 of any GPU: a copy that fits there is no ceiling
_SIDE, _PRODUCTS = 8192, 100
_QUERY = (
    "name,driver_version,memory.total,memory.used,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,"
    "power.limit,compute_mode,mig.mode.current"
)


def look(report: Report, place: Place) -> None:
    """Versions, clocks and packages."""
    gpu = place.gpu
    report.add(
        "GPU", "measured",
        f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes >> 20} MiB, "
        f"driver for CUDA {gpu.cuda}",
    )  # fmt: skip
    report.add("host", "measured", f"{board_name() or platform.machine()}, Python "
               f"{platform.python_version()}, {runtime_versions()}")  # fmt: skip
    report.check("clocks", _clocks, measures=True)


def _clocks() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        raise Skipped("nvidia-smi is not installed")
    command = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{_QUERY}: {done.stdout.strip() or done.stderr.strip()}"


def ceilings(report: Report, _: Place) -> None:
    """A copy beyond the L2, an empty graph, and large products where torch is there."""
    report.check("copy", _copy, measures=True)
    report.check("graph of one small copy", _small_graph, measures=True)
    for name in ("float16", "bfloat16"):
        report.check(f"product of {_SIDE}^3, {name}", partial(_product, name), measures=True)


def _copy() -> str:
    cudart = import_cudart()
    kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    size = min(COPY_BYTES, int(call(cudart.cudaMemGetInfo)[0]) // 4)
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        here, there = (closing(stack, DeviceMemory(size)) for _ in range(2))
        work = (there.address, here.address, size, kind, stream.handle)
        microseconds = time_between_events(lambda: call(cudart.cudaMemcpyAsync, *work), stream, 5)
    return f"{2 * size / microseconds / 1e3:.0f} GB/s, {size >> 20} MiB read and written"


def _small_graph() -> str:
    cudart = import_cudart()
    kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    with ExitStack() as stack:
        stream = closing(stack, Stream())
        here, there = (closing(stack, DeviceMemory(256)) for _ in range(2))
        work = (there.address, here.address, 256, kind, stream.handle)
        launch = partial(call, cudart.cudaMemcpyAsync, *work)
        together = time_in_graph(launch, stream)
        graph = closing(stack, stream.capture(launch))
        alone = time_between_events(graph.launch, stream, 200)
    return f"{alone:.1f} us alone, {together:.1f} us each of many in a graph"


def _product(name: str) -> str:
    torch = import_torch()
    a, b = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=getattr(torch, name)) for _ in range(2))
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(_PRODUCTS):  # an idle GPU's clock rises with them
        a @ b
    begin.record()
    for _ in range(_PRODUCTS):
        a @ b
    end.record()
    end.synchronize()
    return f"{2 * _SIDE**3 * _PRODUCTS / begin.elapsed_time(end) / 1e9:.0f} TFLOP/s"
