"""Asks NVIDIA's driver what GPU there is, through its C library.

Before anything else of NVIDIA's is created: TensorRT without a driver ends the process.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from cmlr_edge.errors import EngineError

_LIBRARY = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of cuDeviceGetAttribute
_NAME_BYTES = 256


@dataclass(frozen=True)
class Gpu:
    """The first GPU."""

    name: str
    compute_capability: str  # "8.7"
    memory_bytes: int
    cuda: str  # newest CUDA that the driver runs, "12.6"


def find_gpu() -> Gpu:
    """Describe the first GPU.

    Raises:
        EngineError: No driver, no GPU, or a driver that does not work; the message has the remedy.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise EngineError(
            f"no NVIDIA driver here: {_LIBRARY} is not found. On a Jetson install JetPack, in a "
            "container start it with `--runtime nvidia`; elsewhere run the .onnx file"
        ) from error
    _call(library, "cuInit", 0)
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _call(library, "cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise EngineError("the NVIDIA driver works but finds no GPU: run the .onnx file")
    _call(library, "cuDeviceGet", ctypes.byref(device), 0)
    _call(library, "cuDriverGetVersion", ctypes.byref(version))
    name, memory = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    _call(library, "cuDeviceGetName", name, _NAME_BYTES, device)
    _call(library, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{_attribute(library, device, _CAPABILITY_MAJOR)}."
        f"{_attribute(library, device, _CAPABILITY_MINOR)}",
        memory_bytes=memory.value,
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _attribute(library: ctypes.CDLL, device: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    _call(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    if (status := getattr(library, function)(*arguments)) != 0:
        raise EngineError(
            f"the NVIDIA driver does not work: {function} gave CUDA error {status}. See "
            "`nvidia-smi` (on a Jetson: `sudo dmesg`); a restart helps after an update"
        )
