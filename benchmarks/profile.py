"""`python -m benchmarks.profile MODEL`: where a frame's time goes, stage by stage and layer by layer.

Stages are those of the Recognizer; layers are what OpenVINO says of its own graph, each assigned to the
part of the network that it was made of. Counting costs a little, so that layers add up to more than
the stage that they are in.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import onnx
import typer

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.peers.frames import frames
from benchmarks.peers.settings import compile_openvino
from benchmarks.records import write_json
from cmlr_edge import Recognizer
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.machine.facts import describe_machine
from cmlr_edge.model.files import model_path, spec_path
from cmlr_edge.model.spec import ModelSpec

PARTS = ("pixels", "backbone", "head")


def parts_of_nodes(graph: onnx.GraphProto) -> dict[str, str]:
    """Part of the network by node, as export named it."""
    return {node.name: node.name.partition("/")[0] for node in graph.node}


def profile_layers(path: Path, precision: str, *, runs: int) -> list[dict[str, Any]]:
    """Median ms of every layer of OpenVINO's compiled graph, in its order.

    Args:
        path: An exported ONNX file.
        precision: "f32" or "bf16".
        runs: To take the median of.
    """
    counting = {"INFERENCE_PRECISION_HINT": precision, "PERF_COUNT": True}
    compiled = compile_openvino(path, counting)
    request = compiled.create_infer_request()
    _, height, width, _ = compiled.input(0).shape
    pixels = golden_frames(0, (height, width))
    times: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, tuple[str, str]] = {}
    for _ in range(runs):
        request.infer([pixels])
        for layer in request.profiling_info:
            if layer.status.name == "EXECUTED":
                times[layer.node_name].append(layer.real_time.total_seconds() * 1e3)
                kinds[layer.node_name] = layer.node_type, layer.exec_type
    part_of = _parts_of_layers(compiled, path, [*times])
    return [
        {
            "layer": name,
            "part": part_of[name],
            "kind": kinds[name][0],
            "kernel": kinds[name][1],
            "ms": float(np.median(values[len(values) // 4 :])),
        }
        for name, values in times.items()
    ]


def _parts_of_layers(compiled: Any, path: Path, layers: list[str]) -> dict[str, str]:
    """Part by layer, by the nodes that each was made of."""
    parts = parts_of_nodes(onnx.load(path).graph)
    origins = {
        op.get_friendly_name(): op.get_rt_info()["originalLayersNames"].astype(str).split(",")
        for op in compiled.get_runtime_model().get_ops()
    }
    found, part = {}, PARTS[0]
    for name in layers:
        known = [parts[origin] for origin in origins.get(name, []) if origin in parts]
        # A layer that OpenVINO put in by itself belongs to what runs before it.
        found[name] = part = max(known, key=PARTS.index) if known else part
    return found


def profile_stages(path: Path, provider: str, *, seconds: float) -> dict[str, float]:
    """Median ms of each stage of a Recognizer, and of what no stage counts."""
    stages: dict[str, list[float]] = defaultdict(list)
    with Recognizer.from_engine(path, provider=provider) as recognizer:
        images = frames()
        for image in images:
            recognizer(image)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            latency = recognizer(images[len(stages["total"]) % len(images)]).latency_ms
            total = (time.perf_counter() - start) * 1e3
            for stage in ("preprocess", "inference", "postprocess"):
                stages[stage].append(getattr(latency, stage))
            stages["rest"].append(total - latency.total)
            stages["total"].append(total)
    return {stage: float(np.median(values)) for stage, values in stages.items()}


def sums(layers: list[dict[str, Any]]) -> dict[str, float]:
    """Ms by part."""
    return {part: sum(layer["ms"] for layer in layers if layer["part"] == part) for part in PARTS}


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """A bar for each model, as long as its layers and the stages around them."""
    names = [f"{r['model']}\n{r['provider']}" for r in records]
    bars = {part: [sums(r["layers"])[part] for r in records] for part in PARTS}
    bars |= {s: [r["stages_ms"][s] for r in records] for s in ("preprocess", "postprocess", "rest")}
    order = ("preprocess", *PARTS, "postprocess", "rest")
    figure, axis = plt.subplots(figsize=(8, 0.7 + 0.7 * len(records)), layout="constrained")
    left = np.zeros(len(records))
    totals = np.sum([bars[name] for name in order], axis=0)
    for name in order:
        shares = 100 * np.asarray(bars[name]) / totals
        axis.barh(names, shares, left=left, label=name)
        left += shares
    axis.invert_yaxis()
    axis.tick_params(labelsize=7)
    axis.set_xlabel("share of a frame's time, %", fontsize=8)
    axis.legend(fontsize=7, ncols=len(order), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(
    models: Annotated[list[Path], typer.Argument(help="Exported ONNX files, or their folders.")],
    out: Annotated[Path, typer.Option(help="profile.json; profile.png is put beside it.")] = Path(
        "benchmarks/results/latency/profile.json"
    ),
    provider: Annotated[str, typer.Option(help="openvino or openvino-bf16.")] = "openvino-bf16",
    runs: Annotated[int, typer.Option(min=8, help="Of the counted graph.")] = 200,
    seconds: Annotated[float, typer.Option(help="Of the stages.")] = 4.0,
) -> None:
    """Profile models in turn; write the record and a picture."""
    precision = "bf16" if provider.endswith("bf16") else "f32"
    records = []
    for folder in models:
        path = model_path(folder)
        stages = profile_stages(path, provider, seconds=seconds)
        layers = profile_layers(path, precision, runs=runs)
        name = ModelSpec.load(spec_path(path)).name
        records.append(
            {"model": name, "provider": provider, "stages_ms": stages, "parts_ms": sums(layers)}
            | {"layers": layers}
        )
    record = {"machine": describe_machine(), "models": records}
    write_json(out, record)
    draw(records, out.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
