"""Looks at what may crash or hang - drivers and binary packages - in child processes with a time limit.

Each probe is a function here that returns what it found, JSON-ready, or None where the package is not
installed. `ask("opencv")` runs one in a child, so that a library that ends its process, or never
returns, costs one answer and not the caller.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cmlr_edge.capture.ffmpeg import PyAvFilm
from cmlr_edge.capture.interlaced import interlaced_sample, shows_sample
from cmlr_edge.capture.opencv_film import converts_interlaced
from cmlr_edge.engines.opening import examine
from cmlr_edge.engines.preflight import machine_checks
from cmlr_edge.errors import CmlrError
from cmlr_edge.machine.child import python_command, run_limited
from cmlr_edge.machine.driver import find_gpu
from cmlr_edge.machine.no_telemetry import import_runtime
from cmlr_edge.machine.pyav import pyav as usable_pyav

# y = x, float32 (1,); ONNX IR 8, opset 13: the smallest model that a provider can be asked to take.
_IDENTITY_ONNX = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201695a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
# Packages that bring the same module: two of them overwrite each other's files.
_OPENCV_PACKAGES = tuple(
    f"opencv-{name}"
    for name in ("python", "python-headless", "contrib-python", "contrib-python-headless")
)
_ONNXRUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")


@dataclass(frozen=True)
class Answer:
    """What a child process said."""

    found: dict[str, Any] | None  # None: not installed, or see `error`
    error: str = ""  # how it ended, if not well; in the library's own words where it has some
    messages: str = ""  # what the library wrote on stderr
    late: bool = False  # it was given up, and may be well on a machine that is less busy


def ask_all(*, heard: Callable[[str], object] = str) -> dict[str, Answer]:
    """Run every probe, two at a time; return the answers by name.

    Args:
        heard: Gets the name of each that has answered.
    """
    answers: dict[str, Answer] = {}
    with ThreadPoolExecutor(2) as pool:
        given = pool.map(ask, _OF_THE_MACHINE)
        for name, said in zip(_OF_THE_MACHINE, given, strict=True):
            answers[name] = said
            heard(name)
    return answers


def ask(probe: str, *arguments: str, timeout_s: float = 30.0, memory: int | None = None) -> Answer:
    """Run one of this module's probes in a child process.

    Args:
        probe: The function's name.
        arguments: Of the function.
        timeout_s: The child is given up after so long, even if it cannot be killed.
        memory: As for `Child`.
    """
    command = python_command(__name__, answer.__name__, probe, *arguments)
    ended = run_limited(command, timeout_s=timeout_s, memory=memory)
    if ended.error:
        return Answer(None, ended.error, ended.messages, late=ended.limit == "time")
    found: dict[str, Any] | None = json.loads(ended.output.splitlines()[-1])
    return Answer(found, messages=ended.messages)


def answer(probe: str, *arguments: str) -> None:
    """Run one probe in this process and print what it found as the last line; what a child does."""
    print(json.dumps(_PROBES[probe](*arguments), allow_nan=False))  # noqa: T201


def engine(path: str, provider: str) -> dict[str, Any]:
    """Every check of an engine, as `Check.to_record` gives it; provider "" is the usual one."""
    try:
        checks = examine(Path(path), provider=provider or None)
    except CmlrError as error:
        sys.exit(str(error))
    return {"checks": [check.to_record() for check in checks]}


def numpy() -> dict[str, Any] | None:
    """NumPy's version."""
    if (module := _import("numpy")) is None:
        return None
    return {"version": module.__version__}


def opencv() -> dict[str, Any] | None:
    """OpenCV's version, its video back ends, and whether it and NumPy understand each other."""
    if (module := _import("cv2")) is None:
        return None
    numpy_module = _import("numpy")
    assert numpy_module is not None
    picture = numpy_module.zeros((4, 4, 3), numpy_module.uint8)
    module.resize(picture, (2, 2))
    registry = module.videoio_registry
    names = {
        registry.getBackendName(item): registry.hasBackend(item) for item in registry.getBackends()
    }
    backends = sorted(name for name, is_there in names.items() if is_there)
    return {
        "version": module.__version__,
        "backends": backends,
        "interlaced": "FFMPEG" not in backends or converts_interlaced(),
        "distributions": _installed(_OPENCV_PACKAGES),
    }


def pyav() -> dict[str, Any] | None:
    """PyAV's version, and why it cannot be used, where it cannot."""
    if (module := _import("av")) is None:
        return None
    fault = ""
    if usable_pyav() is None:
        fault = "too old"
    else:
        try:
            with interlaced_sample() as path:
                picture = PyAvFilm(module, path).read()
            if picture is None or not shows_sample(picture.image_bgr):
                fault = "does not give the pictures of interlaced video"
        except CmlrError as error:
            fault = str(error)
    return {"version": module.__version__, "fault": fault}


def onnxruntime() -> dict[str, Any] | None:
    """ONNX Runtime's version, the providers it lists, and those that really take a model."""
    if (module := _import("onnxruntime")) is None:
        return None
    listed = list(module.get_available_providers())
    return {
        "version": module.__version__,
        "listed": listed,
        "working": [name for name in listed if _takes_a_model(module, name)],
        "distributions": _installed(_ONNXRUNTIME_PACKAGES),
    }


def _takes_a_model(module: ModuleType, provider: str) -> bool:
    options = module.SessionOptions()
    options.log_severity_level = 4  # why a provider fails is not for the caller's terminal
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = module.InferenceSession(
            _IDENTITY_ONNX, options, providers=[provider], enable_fallback=0
        )
    except Exception:  # noqa: BLE001 (whatever it raises, it does not take a model)
        return False
    if hasattr(session, "get_provider_graph_assignment_info"):  # older versions do not tell
        return any(
            part.ep_name == provider for part in session.get_provider_graph_assignment_info()
        )
    return bool(session.get_providers()[0] == provider)


def openvino() -> dict[str, Any] | None:
    """OpenVINO's version and devices."""
    if (module := _import("openvino")) is None:
        return None
    return {"version": module.__version__, "devices": list(module.Core().available_devices)}


def tensorrt() -> dict[str, Any] | None:
    """TensorRT's version, whether its bindings and NumPy understand each other, and what else misses."""
    if (module := _import("tensorrt") or _import("tensorrt_lean")) is None:
        return None
    numpy_error = ""
    if hasattr(module, "nptype"):
        try:
            # Bindings older than NumPy 1.24 name types that are gone; it shows in this call only.
            for kind in (module.float32, module.float16, module.int32, module.int8, module.bool):
                module.nptype(kind)
        except (AttributeError, TypeError) as error:
            numpy_error = str(error)
    return {
        "version": module.__version__,
        "numpy_error": numpy_error,
        "missing": [
            check.message
            for check in machine_checks()
            if check.state == "failed" and check.name not in {"driver", "gpu"}
        ],
    }


def cuda_driver() -> dict[str, Any] | None:
    """The first GPU, as NVIDIA's driver describes it; None without a driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    try:
        return asdict(find_gpu())
    except CmlrError as error:
        sys.exit(str(error))


def native() -> dict[str, Any] | None:
    """Whether this package's own compiled operators can be loaded."""
    module = importlib.import_module("cmlr_edge._native")
    return {"operators": sorted(name for name in vars(module) if not name.startswith("_"))}


def _import(name: str) -> Any:
    """Import a package by name, for a look; the runtimes' homes are `opencv.py` and `backends/`."""
    try:
        return import_runtime(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def _installed(packages: tuple[str, ...]) -> list[str]:
    names = {str(item.metadata["Name"]).lower() for item in importlib.metadata.distributions()}
    return sorted(names.intersection(packages))


_PROBES: dict[str, Callable[..., dict[str, Any] | None]] = {
    probe.__name__: probe
    for probe in (numpy, pyav, opencv, onnxruntime, openvino, tensorrt, cuda_driver, native, engine)
}
_OF_THE_MACHINE = [name for name in _PROBES if name != engine.__name__]
