"""Checkpoint -> model.onnx, model.json and fusion.json, verified against the training model before it is written.

python export/build_engine.py --checkpoint runs/first --out models/first --data photos

On a Jetson `--target tensorrt` adds model.engine, verified against model.onnx.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

if __name__ == "__main__":  # run as a file: let `train` and `export` be found
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.capture.images import list_folder, read_image
from cmlr_edge.cli.usage import run_command
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.engines.preflight import require_gpu_software
from cmlr_edge.engines.signature import sign
from cmlr_edge.errors import CmlrError, DataError, EngineError
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.model.files import sha256_of, signature_path, spec_path, write_atomically
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import BuiltFile, ModelSpec, PreprocessSpec
from cmlr_edge.model.thresholds import ThresholdRule
from cmlr_edge.preprocess import preprocess
from export.calibrate import quantize
from export.deploy import DeployModel
from export.engine import build_engine_file
from export.fusion_report import FusionReport
from export.onnx_graph import export_explained, export_fused, store_as_float16
from export.precision import to_float16
from export.quantize_cpu import MAX_SHARE, quantize_for_cpu
from export.verify import synthetic_frames, verify, verify_explanation
from train.data import read_dataset
from train.data.base import LabeledImages
from train.judging.refit import with_refitted_thresholds
from train.network.checkpoint import held_out_by, load_config, load_model
from train.network.model import CausalRecognizer

_SYNTHETIC_FRAMES = 8
_MOST_CALIBRATION_PICTURES = 100  # more did not change the ranges that matter
_stderr = Console(stderr=True)
_log = logging.getLogger(__name__)


Precision = Literal["float32", "float16", "int8"]


class Int8For(str, Enum):
    """What runs an int8 file."""

    cpu = "cpu"
    gpu = "gpu"


class Target(str, Enum):
    """What to build."""

    onnx = "onnx"
    tensorrt = "tensorrt"


Report = Callable[[int, int], None]  # calibration pictures seen since, and how many there are


def build_engine(
    checkpoint: Path,
    out: Path,
    *,
    data: Path | None = None,
    split: str = "val",
    precision: Precision = "float32",
    calibration: Path | None = None,
    max_flips: float | None = None,
    int8_for: Int8For = Int8For.cpu,
    tensorrt: BuildOptions | None = None,
    sign_with: Path | None = None,
    explain: bool = False,
    report: Report = lambda _done, _total: None,
) -> ModelSpec:
    """Export a run, verify it, and write it.

    Args:
        checkpoint: Run folder that `python -m train fit` wrote.
        out: Folder to write model.onnx and model.json to; created.
        data: Pictures to verify on as well; seeded patterns are always used. "int8" fits the
            thresholds on them again.
        split: Of `data`.
        precision: "float16" writes a typed float16 graph, "int8" one with a quantised backbone.
        calibration: Folder of pictures to measure ranges on, for "int8"; None: the split train of `data`.
        max_flips: Share of label decisions that may differ; `export/verify.py` has a table.
        int8_for: The form of an "int8" file: uint8 activations and int8 weights for CPUs, symmetric int8,
            which TensorRT builds, for GPUs.
        tensorrt: Build model.engine as well, for the GPU of this machine.
        sign_with: PEM of a private key; a signature is written beside each model file.
        explain: With the outputs that say why a score is what it is. ONNX Runtime and OpenVINO compute
            them only where they are asked for, TensorRT in every run.
        report: Told how far calibration is.

    Returns:
        The spec as written; what fusion saved is written to fusion.json beside it.

    Raises:
        DataError: The checkpoint or the data is missing or damaged, or has other labels.
        CaptureError: There are no calibration pictures, or one cannot be read.
        EngineError: The exported model disagrees with the training model, or the engine with the
            exported model, there is no GPU for it, the key cannot sign, or `explain` is asked of
            scores that are no sum; nothing is written.
        DependencyError: TensorRT, cuda-python or model-signing is missing.
    """
    if tensorrt is not None and precision == "int8" and int8_for is Int8For.cpu:
        raise DataError("TensorRT builds no int8 file for CPUs: give --for gpu")
    if tensorrt is not None:
        require_gpu_software()  # known before minutes are spent
    if sign_with is not None:
        sign(ModelPair(out / "model.onnx", b"", b""), sign_with)  # likewise
    model, trained = load_model(checkpoint)
    whole = None if data is None else held_out_by(checkpoint, read_dataset(data))
    part = None if whole is None else whole.split(split)
    if precision == "int8" and part is not None and part.classes != trained.labels:
        raise DataError(
            f"{part.name} has other classes than the run: thresholds cannot be fitted on it again"
        )
    seen = _calibration_frames(calibration, whole, trained) if precision == "int8" else None
    narrow = load_config(checkpoint).weight_storage == "float16"
    # Folded norms would change weights that were trained to fit float16.
    keep_norms = narrow and precision == "float32"
    onnx_model, fusion, meaning = _export(model, trained, norms=not keep_norms, explain=explain)
    if meaning is not None and meaning.training is not None:
        seen_by = replace(meaning.training, pictures=trained.provenance.num_train_images)
        meaning = replace(meaning, training=seen_by)
    trained = replace(trained, explanation=meaning)
    if seen is not None:
        onnx_model = _quantize(onnx_model, seen, trained, int8_for, max_flips, report)
    elif precision == "float16":
        onnx_model = to_float16(onnx_model)
    if narrow and precision != "float16":
        onnx_model = store_as_float16(onnx_model)
    content, path = onnx_model.SerializeToString(), out / "model.onnx"
    frames, spec = synthetic_frames(trained.preprocess.size_hw, _SYNTHETIC_FRAMES), trained
    if part is not None:
        own = _read_frames([image.path for image in part.images], trained.preprocess)
        frames = np.concatenate([frames, own])
        if precision == "int8":
            spec = _refit(path, content, own, part, spec)
    parity, golden = verify(
        path,
        content,
        DeployModel(model, spec.preprocess).eval(),
        spec,
        frames,
        precision=precision,
        trained_thresholds=trained.thresholds,
        max_flips=max_flips,
    )
    if explain:
        verify_explanation(path, content, spec, frames[:_SYNTHETIC_FRAMES], precision)
    built = BuiltFile(
        sha256=sha256_of(content),
        runtime="onnx",
        precision=precision,
        parity=parity,
        golden=golden,
    )
    spec, files = replace(spec, files={path.name: built}), {path: content}
    if tensorrt is not None:
        engine = out / "model.engine"
        files[engine], built_engine = build_engine_file(
            engine, path, content, spec, frames, tensorrt, max_flips=max_flips
        )
        spec = replace(spec, files={**spec.files, engine.name: built_engine})
    _write(out, files, spec, fusion)
    for path in files:
        signature_path(path).unlink(missing_ok=True)  # of what lay there before
        if sign_with is not None:
            write_atomically(signature_path(path), sign(ModelPair.read(path), sign_with))
    return spec


def _export(
    model: CausalRecognizer, spec: ModelSpec, *, norms: bool, explain: bool
) -> tuple[onnx.ModelProto, FusionReport, ExplanationSpec | None]:
    """The graph, what was folded, and what its outputs beside the scores mean."""
    if explain:
        return export_explained(model, spec.preprocess, norms=norms)
    return *export_fused(model, spec.preprocess, norms=norms), None


def _quantize(
    model: onnx.ModelProto,
    seen: NDArray[np.uint8],
    spec: ModelSpec,
    int8_for: Int8For,
    max_flips: float | None,
    report: Report,
) -> onnx.ModelProto:
    def tell(done: int) -> None:
        report(done, len(seen))

    if int8_for is Int8For.gpu:
        return quantize(model, seen, report=tell)
    share = MAX_SHARE if max_flips is None else max_flips
    found = quantize_for_cpu(model, seen, spec, max_share=share, report=tell)
    if found.in_float32:
        _log.info(
            "%d of %d layers stay float32, for the decisions' sake: %s",
            len(found.in_float32),
            found.products,
            ", ".join(found.in_float32),
        )
    return found.model


def _calibration_frames(
    folder: Path | None, data: LabeledImages | None, spec: ModelSpec
) -> NDArray[np.uint8]:
    """Some pictures of the folder, else of those trained on, spread evenly over their names."""
    if folder is not None and not folder.is_dir():
        raise DataError(f"no folder {folder}: expected one with calibration pictures in it")
    if folder is not None:
        paths = list_folder(folder)
    elif data is not None and "train" in data.splits:
        paths = sorted(image.path for image in data.split("train").images)
    else:
        raise DataError(
            "int8 needs pictures like those to come: --calibration DIR, or --data with a split train"
        )
    count = min(len(paths), _MOST_CALIBRATION_PICTURES)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    return _read_frames(chosen, spec.preprocess)


def _refit(
    path: Path, content: bytes, frames: NDArray[np.uint8], part: LabeledImages, spec: ModelSpec
) -> ModelSpec:
    """Thresholds that fit the quantised scores, by the rule that the trained ones were fitted by."""
    backend = load_backend(path, content, provider="cpu")
    try:
        scores = np.concatenate([backend.infer(frame[None]) for frame in frames])
    finally:
        backend.close()
    fit = spec.threshold_fit
    rule = ThresholdRule.parse(fit.rule)
    return with_refitted_thresholds(
        spec, scores, part, rule, shrinkage=fit.shrinkage, precision="int8"
    )


def _write(out: Path, files: dict[Path, bytes], spec: ModelSpec, fusion: FusionReport) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        write_atomically(path, content)
    spec.save(spec_path(next(iter(files))))
    text = json.dumps(fusion.to_json(), indent=2)
    write_atomically(out / "fusion.json", text.encode())


def _read_frames(paths: Sequence[Path], spec: PreprocessSpec) -> NDArray[np.uint8]:
    return np.stack([preprocess(read_image(path), spec) for path in paths])


def _share(text: str) -> float:
    """Read "0.5%" or "0.005"."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r}: expected a share such as 0.5% or 0.005")
    return share


def _read_batch(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 3 or text.count(",") != 2:
        raise EngineError(f"--batch is {text!r}: expected smallest,tuned,largest such as 1,1,8")
    return numbers[0], numbers[1], numbers[2]


def main(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that `python -m train fit` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write model.onnx and model.json to.")],
    data: Annotated[
        Path | None, typer.Option(help="Data folder: verify on its pictures too.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data to verify on.")] = "val",
    fp16: Annotated[bool, typer.Option("--fp16", help="Write a typed float16 graph.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the backbone; with --data or --calibration.")
    ] = False,
    int8_for: Annotated[
        Int8For | None,
        typer.Option("--for", help="What runs the int8 file. Default: cpu, with an engine gpu."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures to measure int8 ranges on; without it, train of --data."
        ),
    ] = None,
    max_flips: Annotated[
        float | None,
        typer.Option(
            parser=_share, metavar="SHARE", help="Of label decisions that may differ, as 0.5%."
        ),
    ] = None,
    target: Annotated[
        Target, typer.Option(help="tensorrt: build model.engine too, for the GPU here.")
    ] = Target.onnx,
    batch: Annotated[str, typer.Option(help="Smallest, tuned and largest batch.")] = "1,1,8",
    no_plugin: Annotated[
        bool, typer.Option("--no-plugin", help="Engine without our attention kernel.")
    ] = False,
    timing_cache: Annotated[
        str | None, typer.Option("--timingCacheFile", help="Read, and written after a build.")
    ] = None,
    dla_core: Annotated[int | None, typer.Option("--useDLACore", help="Of a Jetson Orin.")] = None,
    gpu_fallback: Annotated[
        bool, typer.Option("--allowGPUFallback", help="For layers the DLA does not have.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="With outputs that say why, and where in the picture.")
    ] = False,
    sign_key: Annotated[
        Path | None,
        typer.Option("--sign", help="PEM private key: sign model and spec; SECURITY.md."),
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="MiB for TensorRT's scratch.")] = None,
    build_timeout: Annotated[
        float, typer.Option(help="Seconds that TensorRT may take to build.")
    ] = BuildOptions.timeout_s,
) -> None:
    """Export a trained run for the SDK.

    Example: python export/build_engine.py --checkpoint runs/first --out models/first
    """
    try:
        if fp16 and int8:
            raise DataError("--fp16 and --int8 exclude each other: a file has one precision")
        if int8_for is not None and not int8:
            raise DataError("--for says what runs an int8 file: give --int8 too")
        if int8_for is None:
            int8_for = Int8For.gpu if target is Target.tensorrt else Int8For.cpu
        options = None
        if target is Target.tensorrt:
            options = BuildOptions(
                batch=_read_batch(batch),
                plugin=None if no_plugin else str(plugin_library()),
                timing_cache=timing_cache,
                dla_core=dla_core,
                allow_gpu_fallback=gpu_fallback,
                workspace_mib=workspace,
                timeout_s=build_timeout,
            )
        precision: Precision = "int8" if int8 else "float16" if fp16 else "float32"
        with Progress(console=_stderr, transient=True, disable=not _stderr.is_terminal) as progress:
            task = progress.add_task("exporting and verifying", total=None)
            spec = build_engine(
                checkpoint,
                out,
                data=data,
                split=split,
                precision=precision,
                calibration=calibration,
                max_flips=max_flips,
                int8_for=int8_for,
                tensorrt=options,
                sign_with=sign_key,
                explain=explain,
                report=lambda done, total: progress.update(
                    task, description="calibrating", total=total, advance=done
                ),
            )
    except CmlrError as error:
        _stderr.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    for name, built in spec.files.items():
        parity = built.parity
        _stderr.print(
            f"wrote {out / name} and its spec: on {parity.num_images} images the largest score "
            f"difference is {parity.max_score_difference:.2g}, {parity.decision_flips} decisions "
            "differ"
        )
    if int8 and data is None:
        _stderr.print(
            "thresholds are still those of the trained model: fit them to this file with "
            f"python -m train refit-thresholds --engine {out} --data DIR, or give --data"
        )


if __name__ == "__main__":
    try:
        run_command(main, "export/build_engine.py")
    except CmlrError as error:
        _stderr.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
