"""ONNX -> TensorRT engine, in a process of its own: a build that is killed ends nothing else.

One path for TensorRT 10.3 to 11.4: every type is written in the ONNX file, and the network is
strongly typed. `cmlr_edge.engines.build_process` is the other side.
"""

from __future__ import annotations

import json
import signal
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cmlr_edge.backends.onnx_functions import without_function
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.child import Ended, python_command, run_limited
from cmlr_edge.machine.hardware import available_memory
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.strict_json import from_json

_MIB = 2**20
# What a build holds besides the weights, and how often it holds those. TensorRT-RTX took 300 MiB
# and 3 times the file; a build that times kernels on the GPU takes more. Unverified on hardware.
_BASE_BYTES, _TIMES_THE_FILE = 1024 * _MIB, 8


@dataclass(frozen=True)
class BuildOptions:
    """How to build an engine; the names are those of `trtexec`."""

    batch: tuple[int, int, int] = (1, 1, 8)  # smallest, tuned for, largest
    plugin: str | None = None  # library with CmlrAttention; None: its plain operations
    timing_cache: str | None = None  # file to read, and to write what was timed
    dla_core: int | None = None
    allow_gpu_fallback: bool = False  # of layers that the DLA does not have
    workspace_mib: int | None = None  # None: all the GPU has
    compute_capability: str | None = None  # "8.7"; None: of the GPU here. TensorRT-RTX alone
    timeout_s: float = (
        7200.0  # a build that takes longer is ended; large networks take half an hour
    )
    module: str = "tensorrt"  # or "tensorrt_rtx", which builds without a GPU

    def __post_init__(self) -> None:
        """Reject what no build can satisfy."""
        smallest, tuned, largest = self.batch
        if not 1 <= smallest <= tuned <= largest:
            raise EngineError(
                f"batch is {self.batch}: give smallest, tuned and largest, 1 or more and rising"
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise EngineError(f"workspace is {self.workspace_mib} MiB: give at least 1")
        if not self.timeout_s > 0:
            raise EngineError(f"the time limit is {self.timeout_s:g} s: give more than 0")


@dataclass(frozen=True)
class BuildReport:
    """What was built."""

    tensorrt: str  # version
    plugin_layers: int
    dla_layers: int  # that the DLA took
    layers: dict[str, int]  # by precision: of the engine, or without a GPU of the network
    peak_bytes: int  # of memory, of the process that built


def build_plan(onnx: bytes, options: BuildOptions) -> tuple[bytes, BuildReport]:
    """Build an engine for the GPU of this machine.

    Args:
        onnx: A file of export/build_engine.py.
        options: See there.

    Returns:
        The engine and what is in it.

    Raises:
        EngineError: Too little memory or time, TensorRT refused the model or the options - its own
            words are in the message - or the build was killed.
    """
    _require_memory(len(onnx), options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = without_function(onnx, _attention_name()) if options.plugin else onnx
        if len(model) == len(onnx):  # nothing there for the plugin to do
            options = replace(options, plugin=None)
        (folder / "model.onnx").write_bytes(model)
        (folder / "options.json").write_text(json.dumps(asdict(options)))
        command = python_command("cmlr_edge.engines.build_process", "main", str(folder))
        done = run_limited(command, timeout_s=options.timeout_s)
        report = folder / "report.json"
        if done.code != 0 or not report.is_file():
            raise EngineError(_why(done, folder / "error.txt", options))
        plan = (folder / "model.engine").read_bytes()
        if options.timing_cache and (folder / "timing.cache").is_file():
            write_atomically(Path(options.timing_cache), (folder / "timing.cache").read_bytes())
        return plan, from_json(BuildReport, json.loads(report.read_text()))


def _attention_name() -> str:
    from cmlr_edge._native import ATTENTION_NAME

    return ATTENTION_NAME


def _why(done: Ended, error: Path, options: BuildOptions) -> str:
    if done.limit == "time":
        return (
            f"the build took longer than {options.timeout_s:g} s and was ended: give it more time "
            "(--build-timeout), or a smaller --batch"
        )
    if error.is_file():
        return error.read_text()
    if done.limit == "memory" or done.code == -signal.SIGKILL:
        return (
            "the build was killed, most likely because memory ran out: close other programs, add "
            "swap, or give a smaller --batch or --workspace"
        )
    if done.code < 0:
        return f"the build {done.error}; TensorRT's last words: {done.messages[-500:]}"
    return f"the build failed: {done.messages[-500:]}"


def _require_memory(file_bytes: int, options: BuildOptions) -> None:
    needed, available = memory_to_build(file_bytes, options), available_memory()
    if available < needed:
        raise EngineError(
            f"building this engine needs about {needed // _MIB} MiB of memory, "
            f"{available // _MIB} MiB are free: close other programs (on a Jetson: "
            "`sudo init 3` ends the desktop), add swap, or give a smaller --workspace"
        )


def memory_to_build(file_bytes: int, options: BuildOptions) -> int:
    """Bytes of free memory without which no build is started, for an ONNX file of that size."""
    return _BASE_BYTES + _TIMES_THE_FILE * file_bytes + (options.workspace_mib or 0) * _MIB
