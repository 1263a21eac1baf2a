"""`python -m benchmarks.precision`: what fp16 and int8 cost in decisions, mAP, and time.

Every file is built from the same run as `export/build_engine.py` builds it, scored on the same labelled
pictures, and compared with the float32 file; thresholds are fitted again on those pictures.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.records import write_json
from cmlr_edge.backends.openvino_attention import attention_extensions
from cmlr_edge.capture.images import list_folder, read_image
from cmlr_edge.machine.no_telemetry import import_runtime
from cmlr_edge.model.agreement import Agreement
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME, ModelSpec
from cmlr_edge.model.thresholds import ThresholdRule
from cmlr_edge.preprocess import preprocess
from export.calibrate import quantize
from export.onnx_graph import export_fused
from export.precision import to_float16
from export.quantize_cpu import quantize_for_cpu
from train.data import read_dataset
from train.data.base import LabeledImages
from train.judging.metrics import MIN_POSITIVES, average_precisions
from train.judging.refit import with_refitted_thresholds
from train.network.checkpoint import WEIGHTS, load_model
from train.reporting import exit_on_error

openvino = import_runtime("openvino")
Scores = NDArray[np.float32]
_INT8: dict[str, dict[str, Any]] = {
    "int8, percentile 99.99": {},
    "int8, percentile 99.9": {"percentile": 99.9},
    "int8, entropy": {"method": "entropy"},
    "int8, head too": {"with_head": True},
}
_FOR_CPUS = "int8, for CPUs"
_NAMES = ("fp32", "fp16", _FOR_CPUS, *_INT8)
_BY_RUNTIME = 16  # images on which runtimes are compared
_TIMED = ("fp32", "fp16", _FOR_CPUS, "int8, percentile 99.99", "int8, head too")


@dataclass(frozen=True)
class Row:
    """One file against the float32 file, on the same pictures."""

    name: str
    megabytes: float
    mean_ap: float
    flips: int  # of all label decisions, thresholds fitted again
    flips_share: float
    flips_same_thresholds: int
    largest_difference: float  # of a score
    mean_difference: float
    silent: list[str]  # labels that fell silent or speak anew, in words
    openvino_difference: float  # largest, between runtimes on the same file


def compare_precisions(
    run: Path,
    data: Path,
    calibration: Path,
    out: Path,
    *,
    split: str,
    pictures: int,
    rounds: int,
    names: Sequence[str] = _NAMES,
    report: Callable[[str], None],
) -> None:
    """Build, score and time every file, writing each result as it comes.

    Args:
        run: Of `python -m train fit`.
        data: Labelled pictures.
        calibration: Folder of pictures for int8 ranges.
        out: JSON file; rows that it has for the same settings are not computed again.
        split: Of `data`.
        pictures: Of the calibration folder, spread evenly.
        rounds: Timed runs of one picture for each file.
        names: Of the files to compare with fp32, of `_NAMES`.
        report: Told what is being done.
    """
    model, spec = load_model(run)
    part = read_dataset(data).split(split)
    frames = _frames([image.path for image in part.images], spec)
    paths = list_folder(calibration)
    chosen = np.linspace(0, len(paths) - 1, min(pictures, len(paths))).astype(int)
    header = _header(run, spec, part, split) | {"calibration_pictures": len(chosen)}
    known = json.loads(out.read_text()) if out.exists() else {}
    rows = known.get("rows", []) if known.items() >= header.items() else []
    report("exporting")
    fp32, _ = export_fused(model, spec.preprocess)
    names = ["fp32", *(name for name in _NAMES[1:] if name in names)]
    missing = set(names) - {row["name"] for row in rows}
    plain = _score(_on_onnxruntime(fp32), frames if missing else frames[:1])
    timed = {"fp32": fp32}
    for name in names:
        if name not in missing and name not in _TIMED:
            continue
        report(f"building {name}")
        file = _build(name, fp32, lambda: _frames([paths[i] for i in chosen], spec), spec)
        if name in _TIMED:
            timed[name] = file
        if name in missing:
            report(f"scoring {name}")
            rows.append(asdict(_row(name, file, frames, plain, part, spec)))
            _write(out, {**header, "rows": rows})
    report("timing")
    _write(out, {**header, "rows": rows, "time_of_fp32": _time(timed, frames[:1], rounds)})


def _header(run: Path, spec: ModelSpec, part: LabeledImages, split: str) -> dict[str, Any]:
    """What rows of another run must have in common with ours to be taken over."""
    return {
        "model": spec.name,
        "weights_sha256": hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()[:12],
        "data": f"{part.name}, {len(part.images)} images of {split}",
        "labels_scored": int((part.targets().sum(axis=0) >= MIN_POSITIVES).sum()),
        "onnxruntime": onnxruntime.__version__,
        "openvino": openvino.__version__,
    }


def _write(out: Path, record: dict[str, Any]) -> None:
    write_json(out, record)


def _build(
    name: str, fp32: onnx.ModelProto, seen: Callable[[], NDArray[np.uint8]], spec: ModelSpec
) -> onnx.ModelProto:
    if name == _FOR_CPUS:
        return quantize_for_cpu(fp32, seen(), spec).model
    if name in _INT8:
        return quantize(fp32, seen(), **_INT8[name])
    return to_float16(fp32) if name == "fp16" else fp32


def _frames(paths: list[Path], spec: ModelSpec) -> NDArray[np.uint8]:
    return np.stack([preprocess(read_image(path), spec.preprocess) for path in paths])


def _row(
    name: str,
    file: onnx.ModelProto,
    frames: NDArray[np.uint8],
    plain: Scores,
    part: LabeledImages,
    spec: ModelSpec,
) -> Row:
    scores = _score(_on_onnxruntime(file), frames)
    other = _score(_on_openvino(file), frames[:_BY_RUNTIME])
    fit, targets = spec.threshold_fit, part.targets()
    refitted = with_refitted_thresholds(
        spec,
        scores,
        part,
        ThresholdRule.parse(fit.rule),
        shrinkage=fit.shrinkage,
        precision=name[:4],
    )
    before, after = (np.asarray(s.thresholds, np.float32) for s in (spec, refitted))
    refit = Agreement.of(spec.labels, plain >= before, scores >= after)
    same = Agreement.of(spec.labels, plain >= before, scores >= before)
    precisions = average_precisions(scores, targets, min_positives=MIN_POSITIVES)
    return Row(
        name=name,
        megabytes=file.ByteSize() / 1e6,
        mean_ap=float(np.nanmean(precisions)),
        flips=refit.flips,
        flips_share=refit.flips / refit.decisions,
        flips_same_thresholds=same.flips,
        largest_difference=float(np.abs(scores - plain).max()),
        mean_difference=float(np.abs(scores - plain).mean()),
        silent=refit.changed_labels(refit.flips / refit.decisions),
        openvino_difference=float(np.abs(other - scores[:_BY_RUNTIME]).max()),
    )


def _on_onnxruntime(file: onnx.ModelProto) -> Callable[[NDArray[np.uint8]], Scores]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        file.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda frames: session.run([OUTPUT_NAME], {INPUT_NAME: frames})[0]


def _on_openvino(file: onnx.ModelProto) -> Callable[[NDArray[np.uint8]], Scores]:
    core = openvino.Core()
    core.add_extension(attention_extensions())
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(file.SerializeToString()), "CPU", settings)
    return lambda frames: compiled(frames)[OUTPUT_NAME].copy()


def _score(infer: Callable[[NDArray[np.uint8]], Scores], frames: NDArray[np.uint8]) -> Scores:
    return np.concatenate([infer(frames[i : i + 8]) for i in range(0, len(frames), 8)])


def _time(
    files: dict[str, onnx.ModelProto], frame: NDArray[np.uint8], rounds: int
) -> dict[str, dict[str, float]]:
    """Median time of one picture on one thread, in units of fp32's; files take turns."""
    result = {}
    for runtime, load in {"onnxruntime": _on_onnxruntime, "openvino": _on_openvino}.items():
        loaded = {name: load(file) for name, file in files.items()}
        taken: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(rounds + 2):
            for name, infer in loaded.items():
                start = time.perf_counter()
                infer(frame)
                taken[name].append(time.perf_counter() - start)
        medians = {name: float(np.median(times[2:])) for name, times in taken.items()}
        result[runtime] = {name: value / medians["fp32"] for name, value in medians.items()}
    return result


def main(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that `python -m train fit` wrote.")],
    data: Annotated[Path, typer.Option(help="Data folder with labelled pictures.")],
    calibration: Annotated[Path, typer.Option(help="Folder of pictures for int8 ranges.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    pictures: Annotated[int, typer.Option(min=1, help="Calibration pictures to take.")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs for each file.")] = 20,
    only: Annotated[list[str] | None, typer.Option(help="Files to compare; all.")] = None,
) -> None:
    """Compare fp32, fp16 and ways to int8 on labelled pictures.

    Example: python -m benchmarks.precision --checkpoint runs/first --data photos
    --calibration photos/train --out precision.json
    """
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        compare_precisions(
            checkpoint,
            data,
            calibration,
            out,
            split=split,
            pictures=pictures,
            rounds=rounds,
            names=only or _NAMES,
            report=lambda what: progress.update(task, description=what),
        )
    Console().print(f"wrote {out}")


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
