"""Where the TensorRT plugin of this installation is."""

from __future__ import annotations

from pathlib import Path

from cmlr_edge.errors import EngineError

PLUGIN_NAME = "libcmlr_plugin.so"


def plugin_library() -> Path:
    """The TensorRT plugin of this installation.

    Raises:
        EngineError: It was installed without.
    """
    from cmlr_edge._native import __file__ as native

    path = Path(native).with_name(PLUGIN_NAME)
    if not path.is_file():
        raise EngineError(
            f"this installation has no TensorRT plugin ({PLUGIN_NAME}): on the Jetson install with "
            "`pip install . -C cmake.define.CMLR_CUDA=ON -C cmake.define.CMLR_TENSORRT=ON`, or "
            "build the engine with --no-plugin"
        )
    return path
