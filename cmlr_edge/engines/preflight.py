"""What this machine is, what an engine needs, and the remedy where they differ.

A TensorRT engine is machine code for one TensorRT version and one kind of GPU, and loading it is
running it. So everything is compared before TensorRT is given a byte, in this order: the file's
hash, the driver, TensorRT, the GPU, the plugin.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.driver import Gpu, find_gpu
from cmlr_edge.model.spec import BuiltFile, EngineBuild

_log = logging.getLogger(__name__)

OLDEST_TENSORRT = (10, 3)
_REBUILD = "build it again here with rebuild=True or export/build_engine.py --target tensorrt"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: Literal["file", "driver", "gpu", "tensorrt", "cuda-python", "plugin"]
    state: Literal["ok", "warning", "failed"]
    message: str  # what there is; if not ok, also what was wanted and what to do


def check_hash(path: Path, content: bytes, built: BuiltFile) -> None:
    """Compare a file with its spec.

    Raises:
        EngineError: It is another file than the one that export wrote.
    """
    if (digest := hashlib.sha256(content).hexdigest()) != built.sha256:
        raise EngineError(
            f"{path} has sha256 {digest[:12]}..., its spec says {built.sha256[:12]}...: the "
            "file was changed or cut short; copy engine and spec again, both together"
        )


def preflight(path: Path, content: bytes, built: BuiltFile) -> list[Finding]:
    """Compare a file, and for a TensorRT engine the machine, with the spec.

    Creates nothing of NVIDIA's, so it is safe on any machine.

    Args:
        path: Of the model file, for messages.
        content: Its bytes.
        built: What the spec says of it.

    Returns:
        A finding for everything that was looked at, failed ones included. What cannot be looked at
        because something before it failed is left out.
    """

    def hashed() -> str:
        check_hash(path, content, built)
        return f"{path.name} is the file that its spec describes"

    findings = [_look("file", hashed)]
    if built.engine is not None:
        findings += machine_findings(built.engine)
    return findings


def require_preflight(path: Path, content: bytes, built: BuiltFile) -> None:
    """Run `preflight`, log what is doubtful, and refuse what cannot work.

    Raises:
        EngineError: Something failed; the message has every remedy.
    """
    findings = preflight(path, content, built)
    for finding in findings:
        if finding.state == "warning":
            _log.warning("%s: %s", path.name, finding.message)
    if failed := [finding.message for finding in findings if finding.state == "failed"]:
        raise EngineError(f"{path.name} cannot run here: {'; '.join(failed)}")


def machine_findings(engine: EngineBuild | None = None) -> list[Finding]:
    """Look at this machine's GPU software, on its own or for an engine.

    Args:
        engine: What must fit; None: only what any engine needs.
    """
    findings = []
    try:
        gpu = find_gpu()
    except EngineError as error:
        findings.append(Finding("driver", "failed", str(error)))
    else:
        findings += [Finding("driver", "ok", f"driver for CUDA {gpu.cuda}"), _gpu(gpu, engine)]
    findings.append(_look("tensorrt", lambda: _tensorrt(engine)))
    findings.append(_look("cuda-python", _cuda_python))
    if engine is None or engine.plugin_version is not None:
        findings.append(_look("plugin", lambda: _plugin(engine)))
    return findings


def require_gpu_software() -> Gpu:
    """Find the GPU, and what building or running an engine needs.

    Raises:
        EngineError: No driver or GPU, or TensorRT is too old.
        DependencyError: TensorRT or cuda-python is not installed.
    """
    gpu = find_gpu()
    _tensorrt(None)
    _cuda_python()
    return gpu


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of "10.16.1.11": major, minor, patch."""
    numbers = [int(part) for part in text.split(".")[:3] if part.isdigit()]
    return tuple(numbers)


def _look(
    what: Literal["file", "tensorrt", "cuda-python", "plugin"], look: Callable[[], str]
) -> Finding:
    try:
        return Finding(what, "ok", look())
    except CmlrError as error:
        return Finding(what, "failed", str(error))


def _gpu(gpu: Gpu, engine: EngineBuild | None) -> Finding:
    here = f"{gpu.name} with compute capability {gpu.compute_capability}"
    if engine is None:
        return Finding("gpu", "ok", here)
    built = f"the engine was built on {engine.gpu} with {engine.compute_capability}"
    if gpu.compute_capability != engine.compute_capability:
        return Finding("gpu", "failed", f"{here}, but {built}: {_REBUILD}")
    if gpu.name != engine.gpu:
        return Finding("gpu", "warning", f"{here}, but {built}: it runs, tuned for the other")
    return Finding("gpu", "ok", here)


def _tensorrt(engine: EngineBuild | None) -> str:
    from cmlr_edge.backends.tensorrt import import_tensorrt

    here = import_tensorrt().__version__
    if version_of(here) < OLDEST_TENSORRT:
        raise EngineError(
            f"TensorRT {here} is too old: 10.3 (JetPack 6.1) is the oldest with the plugin "
            "interface that engines here use; update JetPack, or run the .onnx file"
        )
    if engine is not None and version_of(here) != version_of(engine.tensorrt):
        raise EngineError(
            f"TensorRT {here} is installed, the engine was built with {engine.tensorrt} and runs "
            f"with no other: {_REBUILD}"
        )
    return f"TensorRT {here}"


def _plugin(engine: EngineBuild | None) -> str:
    from cmlr_edge._native import ATTENTION_VERSION

    library = plugin_library()
    if engine is not None and engine.plugin_version != ATTENTION_VERSION:
        raise EngineError(
            f"the plugin has version {ATTENTION_VERSION}, the engine was built with "
            f"{engine.plugin_version}: {_REBUILD}"
        )
    return f"plugin {library}"


def _cuda_python() -> str:
    from cmlr_edge.backends.cuda_memory import import_cudart

    import_cudart()
    return "cuda-python"
