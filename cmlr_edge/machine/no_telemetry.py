"""Runtimes that report on their users do not: importing this package turns it off, in children too.

ONNX Runtime from 1.29 on keeps a device's number in the home folder and sends what it runs, unless a
variable says otherwise before it starts. OpenVINO sends an event whenever it is imported beside the
package `openvino_telemetry`, which it depends on; without it, it has a stub. A value that is set already
stays: it is its owner's choice. Ray sends statistics of use from the head of a cluster.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
_REPORTERS = ("openvino_telemetry",)

for _name, _value in OFF.items():
    os.environ.setdefault(_name, _value)


def import_runtime(name: str) -> Any:
    """Import a runtime that shall report nothing.

    Args:
        name: Of the module, such as "onnxruntime".

    Raises:
        ImportError: It is not installed, or does not load.
    """
    with _hidden(_REPORTERS):
        module = importlib.import_module(name)
    if name == "onnxruntime" and hasattr(module, "disable_telemetry_events"):
        module.disable_telemetry_events()  # somebody else may have imported it before us
    return module


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Let an import of these fail, where they are not imported yet."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # Python's mark for "not there"
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
