"""Loads the plugin into the registry of NVIDIA's own library, and says in JSON what came of it.

python plugin_in_registry.py PACKAGES MODULE PLUGIN FINDERS [MODEL]; a process of its own, for it may
crash. FINDERS is logger_finders.cpp, compiled. With MODEL, NVIDIA's parser reads that file, and its
fields for each node go to the plugin.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(packages: str, module: str, library: str, finders: str, model: str | None = None) -> None:
    sys.path.insert(0, packages)
    trt = importlib.import_module(module)
    logger = logger_of(trt)
    # Whoever makes a builder gives TensorRT its logger; without a driver, lean has no other way.
    builder = trt.Builder(logger) if hasattr(trt, "Builder") else None
    registry = trt.get_plugin_registry()
    first, second = (registry.load_library(library) is not None for _ in range(2))
    report: dict[str, Any] = {
        "loads": [first, second],
        "missing": registry.load_library("/nowhere/libcmlr_plugin.so") is not None,
        "foreign": registry.load_library(sys.executable) is not None,
    }
    creator = registry.get_creator("CmlrAttention", "1", "cmlr")
    report["fields"] = [(field.name, field.type.name) for field in creator.field_names]
    report["created"] = {name: create(trt, creator, fields) for name, fields in FIELDS.items()}
    report["said by its own finder"] = ours_of(logger)
    del builder
    for major in (10, 11, 12):  # 12: a class that nobody knows
        for given in (logger, None):
            set_finder(library, finders, major, given)
            create(trt, creator, FIELDS["no heads"])
            report[f"said through {major}, {'logger' if given else 'none'}"] = ours_of(logger)
    if model:
        report["parsed"] = parse(trt, creator, Path(model).read_bytes())
    print(json.dumps(report), flush=True)


def logger_of(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.said.append(f"{severity.name}: {message}")

    return Logger()


def ours_of(logger: Any) -> list[str]:
    """What the plugin said since the last call."""
    said, logger.said = logger.said, []
    return [line for line in said if line.startswith("ERROR: CmlrAttention")]


def set_finder(library: str, finders: str, major: int, logger: Any) -> None:
    """Gives the plugin a finder as TensorRT `major` has it, of this logger."""
    make = ctypes.CDLL(finders).finder_of_tensorrt
    make.restype = ctypes.c_void_p
    # pybind11 keeps the address of the C++ object behind the two words of a Python object.
    behind_head = id(logger) + object.__basicsize__
    address = None if logger is None else ctypes.c_void_p.from_address(behind_head).value
    ctypes.CDLL(library).setLoggerFinder(ctypes.c_void_p(make(major, ctypes.c_void_p(address))))


HEADS, SCALE = np.array([8], np.int32), np.array([0.5], np.float32)
FIELDS: dict[str, dict[str, Any]] = {
    "good": {"num_heads": HEADS, "scale": SCALE},
    "int64": {"num_heads": HEADS.astype(np.int64), "scale": SCALE},
    "no heads": {"num_heads": HEADS * 0, "scale": SCALE},
    "heads missing": {"scale": SCALE},
    "scale missing": {"num_heads": HEADS},
    "heads are a float": {"num_heads": SCALE, "scale": SCALE},
    "two scales": {"num_heads": HEADS, "scale": np.repeat(SCALE, 2)},
    "scale is infinite": {"num_heads": HEADS, "scale": SCALE * np.inf},
}


def create(trt: Any, creator: Any, fields: dict[str, Any]) -> list[str] | None:
    kinds = {np.int32: "INT32", np.int64: "INT64", np.float32: "FLOAT32"}
    listed = [
        trt.PluginField(name, data, getattr(trt.PluginFieldType, kinds[data.dtype.type]))
        for name, data in fields.items()
    ]
    collection = trt.PluginFieldCollection(listed)
    plugin = creator.create_plugin("node", collection, trt.TensorRTPhase.BUILD)
    if plugin is None:
        return None
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return [core.plugin_name, core.plugin_version, core.plugin_namespace]


def parse(trt: Any, creator: Any, content: bytes) -> list[dict[str, Any]]:
    """What the parser gives the creator of plugin_version "probe", and what ours makes of it."""
    seen: list[dict[str, Any]] = []

    class Probe(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.name, self.plugin_version = "CmlrAttention", "probe"
            self.plugin_namespace = "cmlr"
            self.field_names = creator.field_names

        def create_plugin(self, name: str, fields: Any, phase: Any) -> None:
            ours = creator.create_plugin(name, fields, phase) is not None
            given = {field.name: np.array(field.data).tolist() for field in fields}
            seen.append({"fields": given, "ours": ours})

    logger, probe = trt.Logger(trt.Logger.ERROR), Probe()
    trt.get_plugin_registry().register_creator(probe, "cmlr")
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse(content)
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:])
