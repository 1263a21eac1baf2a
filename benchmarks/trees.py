"""`python -m benchmarks.trees`: what each fold of export is worth, and a second tree of the network was.

One network, exported in several ways, every file in one process, in turn and round by round, so that what
else the machine does falls on all of them. A ratio is of two files in the same round.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import inliner
from rich.console import Console

from benchmarks.gpu.standard_attention import with_standard_attention
from benchmarks.intervals import t_interval
from benchmarks.peers.models import NETWORKS, make_model
from benchmarks.records import write_json
from cmlr_edge.backends import load_backend
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.errors import CmlrError
from cmlr_edge.machine.facts import describe_machine, usable_cores
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.spec import PreprocessSpec
from export.deploy import DeployModel
from export.fold_graph import FOLDS, fold_graph
from export.onnx_graph import export_onnx
from export.precision import to_float16
from export.quantize_cpu import _measure_ranges, _quantize

RESULTS = Path("benchmarks/results/latency/trees.json")
HEADS: dict[str, dict[str, Any]] = {
    "one layer": {"decoder_layers": 1},
    "two layers": {"decoder_layers": 2, "self_attention": True},
    "expectation": {"intervention": "expectation", "decoder_layers": 1},
}
BASE = "graph"
# Of a provider: precision of the file, and which files are worth the time.
ENGINES: dict[str, tuple[str, str]] = {
    "ort f32": ("float32", "cpu"),
    "openvino f32": ("float32", "openvino"),
    "openvino bf16": ("float32", "openvino-bf16"),
    "ort int8": ("int8", "cpu"),
    "openvino int8": ("int8", "openvino"),
    "ort fp16": ("float16", "cpu"),
    "openvino fp16": ("float16", "openvino"),
}
_FEW = ("graph", "second tree", "merged")  # of the slow precisions
_stderr = Console(stderr=True)


def write_files(name: str, num_labels: int, head: str, folder: Path) -> None:
    """Export a network in every way, unless it was."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    network = NETWORKS[name]
    model = make_model(network, num_labels, **HEADS[head])
    side = network.image_size
    spec = PreprocessSpec((side, side), model.backbone.mean, model.backbone.std)
    traced = export_onnx(DeployModel(model, spec).eval(), (side, side))
    files = {BASE: _folded(traced)}
    for fold in FOLDS:
        files[f"without {fold}"] = _folded(traced, without=fold)
    files["standard operator"] = standard(files[BASE])
    frames = golden_frames(0, (side, side))
    for variant, file in files.items():
        write_atomically(folder / f"{variant}.float32.onnx", file.SerializeToString())
        if variant in _FEW:
            write_atomically(
                folder / f"{variant}.float16.onnx", to_float16(file).SerializeToString()
            )
            ranges = _measure_ranges(file, frames, lambda _done: None)
            quantized = _quantize(file, ranges, (), reduce_range=False)
            write_atomically(folder / f"{variant}.int8.onnx", quantized.SerializeToString())
    (folder / "done").touch()


def _folded(traced: onnx.ModelProto, *, without: str = "") -> onnx.ModelProto:
    model = copy.deepcopy(traced)
    fold_graph(model, norms=True, without=(without,))
    return model


def standard(model: onnx.ModelProto) -> onnx.ModelProto:
    """ONNX's Attention in the graph itself, as runtimes that look into no function want it."""
    return inliner.inline_local_functions(
        onnx.load_from_string(with_standard_attention(model.SerializeToString()))
    )


@dataclass
class Timed:
    """One file in one engine."""

    backend: Any
    scores: NDArray[np.float32]
    ms: list[float]  # the fastest of each round


def time_files(
    folder: Path, engine: str, *, rounds: int, seconds: float
) -> tuple[dict[str, Timed], dict[str, str]]:
    """Load all files of an engine's precision, and time them in turn."""
    precision, provider = ENGINES[engine]
    frames, loaded, failed = None, {}, {}
    for path in sorted(folder.glob(f"*.{precision}.onnx")):
        variant = path.name.removesuffix(f".{precision}.onnx")
        try:
            backend = load_backend(path, path.read_bytes(), provider=provider)
        except CmlrError as error:
            failed[variant] = str(error)[:300]
            continue
        if frames is None:
            sizes = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[1:3]
            frames = golden_frames(1, (sizes[0].dim_value, sizes[1].dim_value))
        loaded[variant] = Timed(backend, backend.infer(frames), [])
    for i in range(rounds):
        order = list(loaded.values())
        for timed in order if i % 2 == 0 else reversed(order):
            time.sleep(0.003)  # let threads of the one before stop spinning
            timed.ms.append(_fastest(timed.backend, frames, seconds))
    for timed in loaded.values():
        timed.backend.close()
    return loaded, failed


def _fastest(backend: Any, frames: Any, seconds: float) -> float:
    """Ms of the fastest of some runs; the first one warms the caches.

    With one core, it is the time that the processor was at work: what else runs then takes less of it.
    """
    clock = time.process_time if usable_cores() == 1 else time.perf_counter
    backend.infer(frames)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = clock()
        backend.infer(frames)
        times.append((clock() - start) * 1e3)
    return min(times)


def compare(timed: dict[str, Timed]) -> dict[str, Any]:
    """Times, and the ratio to the whole route with a 95 % interval over rounds."""
    base = timed[BASE]
    record = {}
    for name, found in timed.items():
        logs = np.log(np.asarray(found.ms) / np.asarray(base.ms))
        ratios = np.exp([np.median(logs), *t_interval(_trimmed(logs))])
        record[name] = {
            "median_ms": float(np.median(found.ms)),
            "min_ms": float(np.min(found.ms)),
            "ratio": float(ratios[0]),
            "interval": [float(ratios[1]), float(ratios[2])],
            "ratio_of_min": float(np.min(found.ms) / np.min(base.ms)),
            "largest_score_difference": float(np.abs(found.scores - base.scores).max()),
        }
    return record


def _trimmed(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the tenth at either end: rounds that something else ran into."""
    cut = len(logs) // 10
    return np.sort(logs)[cut : len(logs) - cut]


def main(
    networks: Annotated[str, typer.Option(help="By commas.")] = (
        "lite0-224,mobilenetv3-224,resnet50-448"
    ),
    labels: Annotated[str, typer.Option(help="Numbers of labels, by commas.")] = "80,600",
    heads: Annotated[str, typer.Option(help="By commas.")] = ",".join(HEADS),
    engines: Annotated[str, typer.Option(help="By commas.")] = ",".join(ENGINES),
    rounds: Annotated[int, typer.Option(min=5, help="Turns of each file.")] = 40,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 0.04,
    load: Annotated[str, typer.Option(help="What else the machine does.")] = "unknown",
    files: Annotated[Path, typer.Option(help="Folder for the models.")] = Path("build/trees"),
    out: Annotated[Path, typer.Option(help="Results.")] = RESULTS,
    export_only: Annotated[bool, typer.Option(help="Write the models, time nothing.")] = False,
) -> None:
    """Time every file of every network, and write the record."""
    record = json.loads(out.read_text()) if out.is_file() else {"comparisons": {}}
    record |= {"machine": describe_machine(), "cores": usable_cores(), "load": load}
    for name in networks.split(","):
        for count in (int(number) for number in labels.split(",")):
            for head in heads.split(","):
                key = f"{name}, {count} labels, {head}"
                _stderr.print(f"{datetime.now():%T} {key}")
                write_files(name, count, head, files / key)
                if export_only:
                    continue
                found = record["comparisons"].setdefault(key, {})
                for engine in engines.split(","):
                    timed, failed = time_files(files / key, engine, rounds=rounds, seconds=seconds)
                    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
                    found[engine] = {
                        "at": at,
                        "rounds": rounds,
                        "files": compare(timed),
                        "failed": failed,
                    }
                    write_json(out, record)
                    ratios = {n: round(r["ratio"], 3) for n, r in found[engine]["files"].items()}
                    _stderr.print(f"  {engine}: {ratios} {failed or ''}")


if __name__ == "__main__":
    typer.run(main)
