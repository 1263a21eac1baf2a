"""What this machine is, what an engine needs, and the remedy where they differ.

A TensorRT engine is machine code for one TensorRT version and one kind of GPU, and loading it is
running it. So everything is compared before TensorRT is given a byte, in this order: the driver, the
GPU, TensorRT, cuda-python, the DLA, the plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.engines.check import Check, look
from cmlr_edge.engines.dla import caution, refusal
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.driver import Gpu, find_gpu
from cmlr_edge.machine.facts import board_name
from cmlr_edge.model.spec import EngineBuild

OLDEST_TENSORRT = (10, 3)
_REBUILD = "build it again here with rebuild=True or export/build_engine.py --target tensorrt"


def machine_checks(engine: EngineBuild | None = None) -> Iterator[Check]:
    """Look at this machine's GPU software, on its own or for an engine.

    What cannot be looked at because something before it failed is left out.

    Args:
        engine: What must fit; None: only what any engine needs.
    """
    gpu = None
    try:
        gpu = find_gpu()
    except EngineError as error:
        yield Check("driver", "failed", str(error), error=error)
    else:
        yield Check("driver", "ok", f"driver for CUDA {gpu.cuda}")
        yield _gpu(gpu, engine)
    yield look("tensorrt", lambda: _tensorrt(engine))
    yield look("cuda-python", lambda: _cuda_python(gpu))
    if engine is not None and engine.dla_core is not None:
        yield _dla(engine, engine.dla_core)
    if engine is None or engine.plugin_version is not None:
        yield look("plugin", lambda: _plugin(engine))


def require_gpu_software() -> Gpu:
    """Find the GPU, and what building or running an engine needs.

    Raises:
        EngineError: No driver or GPU, TensorRT is too old, or cuda-python too new for the driver.
        DependencyError: TensorRT or cuda-python is not installed.
    """
    gpu = find_gpu()
    _tensorrt(None)
    _cuda_python(gpu)
    return gpu


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of "10.16.1.11": major, minor, patch."""
    numbers = [int(part) for part in text.split(".")[:3] if part.isdigit()]
    return tuple(numbers)


def _gpu(gpu: Gpu, engine: EngineBuild | None) -> Check:
    here = f"{gpu.name} with compute capability {gpu.compute_capability}"
    if engine is None:
        return Check("gpu", "ok", here)
    both = f"{here}, but the engine was built on {engine.gpu} with {engine.compute_capability}"
    if gpu.compute_capability != engine.compute_capability:
        message = f"{both}: {_REBUILD}"
        return Check("gpu", "failed", message, error=EngineError(message))
    if gpu.name != engine.gpu:
        return Check("gpu", "warning", f"{both}: it runs, tuned for the other")
    return Check("gpu", "ok", here)


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


def _dla(engine: EngineBuild, core: int) -> Check:
    """By what the engine was built on: that this machine is that one is checked before."""
    here = version_of(engine.tensorrt)
    why = refusal(engine.compute_capability, here, board_name() or "", engine.batch)
    if why is not None:
        return Check("dla", "failed", why, error=EngineError(why))
    if doubt := caution(here):
        return Check("dla", "warning", f"core {core}: {doubt}")
    return Check("dla", "ok", f"core {core}")


def _plugin(engine: EngineBuild | None) -> str:
    from cmlr_edge._native import ATTENTION_VERSION

    library = plugin_library()
    if engine is not None and engine.plugin_version != ATTENTION_VERSION:
        raise EngineError(
            f"the plugin has version {ATTENTION_VERSION}, the engine was built with "
            f"{engine.plugin_version}: {_REBUILD}"
        )
    return f"plugin {library}"


def _cuda_python(gpu: Gpu | None) -> str:
    """Its major version is that of CUDA, and a driver runs no CUDA of a later one."""
    from cmlr_edge.backends.cuda_memory import call, import_cudart

    cudart = import_cudart()
    major = call(cudart.cudaRuntimeGetVersion) // 1000
    if gpu is not None and major > (newest := version_of(gpu.cuda)[0]):
        raise EngineError(
            f"cuda-python is for CUDA {major}, the driver runs CUDA {gpu.cuda}: "
            f"pip install 'cuda-bindings=={newest}.*', or update the driver (on a Jetson: JetPack)"
        )
    return f"cuda-python for CUDA {major}"
