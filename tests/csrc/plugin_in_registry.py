"""Loads the plugin into the registry of NVIDIA's own library, and says in JSON what came of it.

python plugin_in_registry.py PACKAGES MODULE PLUGIN [MODEL]; a process of its own, for it may crash.
With MODEL, NVIDIA's parser reads that file, and its fields for each node go to the plugin.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(packages: str, module: str, library: str, model: str | None = None) -> None:
    sys.path.insert(0, packages)
    trt = importlib.import_module(module)
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
    if model:
        report["parsed"] = parse(trt, creator, Path(model).read_bytes())
    print(json.dumps(report), flush=True)


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
