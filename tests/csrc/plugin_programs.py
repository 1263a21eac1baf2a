"""Programs that use the plugin's adapter, compiled with TensorRT's headers."""

from __future__ import annotations

from pathlib import Path

from tests.csrc.emulation.emulated_gpu import CSRC, FLAGS, Build, compile_object
from tests.csrc.requirements import require_cuda_headers, require_tensorrt

# What plugin_check.cpp checks, each in a process of its own.
CHECKS = [
    *("names", "attributes", "shapes", "types", "formats"),
    *("configuration", "launch", "serialised", "timing_cache"),
]


def compile_adapter(folder: Path, program: str, kind: Build, csrc: Path = CSRC) -> list[Path]:
    """The objects of the adapter in `csrc`, and of a program that uses it."""
    headers = (require_tensorrt("headers"), require_cuda_headers())
    flags = [*FLAGS[kind][0], *(f"-isystem{folder}" for folder in headers)]
    sources = (csrc / "tensorrt" / "plugin.cpp", Path(__file__).with_name(f"{program}.cpp"))
    return [compile_object(s, folder / f"{s.stem}.o", *flags, csrc=csrc) for s in sources]
