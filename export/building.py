"""A run folder becomes model.onnx, model.json and, on a machine with a GPU, model.engine."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from cmlr_edge.backends import load_backend
from cmlr_edge.capture.images import list_folder, read_image
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.engines.preflight import require_gpu_software
from cmlr_edge.engines.signature import sign, sign_beside
from cmlr_edge.errors import CaptureError, DataError
from cmlr_edge.model.card import CARD, card_beside
from cmlr_edge.model.embedded import names_entry, with_metadata
from cmlr_edge.model.files import (
    sha256_of,
    signature_path,
    spec_path,
    write_together,
)
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.place import refuse_run
from cmlr_edge.model.spec import BuiltFile, ModelSpec, PreprocessSpec
from cmlr_edge.model.thresholds import ThresholdRule
from cmlr_edge.preprocess import preprocess
from cmlr_edge.wording import counted
from export.calibrate import quantize
from export.deploy import DeployModel
from export.engine import build_engine_file
from export.fusion_report import FusionReport
from export.onnx_graph import export_explained, export_fused, store_as_float16
from export.precision import to_float16
from export.quantize_cpu import MAX_SHARE, MOST_FRAMES, quantize_for_cpu
from export.verify import synthetic_frames, verify, verify_explanation
from train.data import read_dataset
from train.data.base import LabeledImages
from train.judging.refit import with_refitted_thresholds
from train.network.checkpoint import (
    check_writable,
    held_out_by,
    load_config,
    load_model,
)
from train.network.model import CausalRecognizer

_SYNTHETIC_FRAMES = 8
_log = logging.getLogger(__name__)

Precision = Literal["float32", "float16", "int8"]
Report = Callable[[int, int], None]  # calibration pictures seen since, and how many there are


class Int8For(str, Enum):
    """What runs an int8 file."""

    cpu = "cpu"
    gpu = "gpu"


def build_engine(
    checkpoint: Path,
    out: Path,
    *,
    data: Path | None = None,
    split: str = "val",
    precision: Precision = "float32",
    calibration: Path | None = None,
    skip_damaged: bool = False,
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
        skip_damaged: Leave out pictures that cannot be read.
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
        OutputError: `out` cannot be written, or holds a run.
        EngineError: The exported model disagrees with the training model, or the engine with the
            exported model, there is no GPU for it, the key cannot sign, or `explain` is asked of
            scores that are no sum; nothing is written.
        DependencyError: TensorRT, cuda-python or model-signing is missing.
    """
    form = _Form(precision, int8_for, max_flips)
    _require_means(form, out, tensorrt, sign_with)
    _log.info("loading the run %s", checkpoint)
    model, trained = load_model(checkpoint)
    whole = None if data is None else held_out_by(checkpoint, read_dataset(data))
    part = None if whole is None else whole.split(split)
    seen = None
    if precision == "int8":
        _require_classes(part, trained.labels)
        seen = _calibration_frames(
            calibration, whole, trained.preprocess, skip_damaged=skip_damaged
        )
    narrow = load_config(checkpoint).weight_storage == "float16"
    # Folded norms would change weights that were trained to fit float16.
    norms = precision != "float32" or not narrow
    _log.info("tracing the network into an ONNX graph")
    graph, fusion, trained = _export(model, trained, norms=norms, explain=explain)
    graph = form.of(graph, seen, trained, report)
    if narrow and precision != "float16":
        graph = store_as_float16(graph)
    path = out / "model.onnx"
    content = with_metadata(graph.SerializeToString(), names_entry(trained.labels))
    frames, spec = _frames_and_spec(
        path, content, part, trained, refit=precision == "int8", skip_damaged=skip_damaged
    )
    built = _verify(path, content, model, (trained, spec), frames, form, explain=explain)
    files, spec = {path: content}, replace(spec, files={path.name: built})
    if tensorrt is not None:
        _log.info("building model.engine for this machine's GPU, which takes minutes")
        engine = out / "model.engine"
        files[engine], built = build_engine_file(
            engine, path, content, spec, frames, tensorrt, max_flips=max_flips
        )
        spec = replace(spec, files={**spec.files, engine.name: built})
    _write(out, files, spec, fusion, sign_with)
    return spec


@dataclass(frozen=True)
class _Form:
    """What kind of file is written."""

    precision: Precision
    int8_for: Int8For
    max_flips: float | None

    def of(
        self,
        model: onnx.ModelProto,
        seen: NDArray[np.uint8] | None,
        spec: ModelSpec,
        report: Report,
    ) -> onnx.ModelProto:
        """The float32 graph in this form; `seen`: calibration pictures, of int8."""
        if seen is None:
            return to_float16(model) if self.precision == "float16" else model
        total = len(seen)
        _log.info("making int8 of it, by ranges measured on %d pictures", total)

        def tell(done: int) -> None:
            report(done, total)

        if self.int8_for is Int8For.gpu:
            return quantize(model, seen, report=tell)
        share = MAX_SHARE if self.max_flips is None else self.max_flips
        found = quantize_for_cpu(model, seen, spec, max_share=share, report=tell)
        if found.in_float32:
            _log.info(
                "%d of %d layers stay float32, for the decisions' sake: %s",
                len(found.in_float32),
                found.products,
                ", ".join(found.in_float32),
            )
        return found.model


def _require_means(
    form: _Form, out: Path, tensorrt: BuildOptions | None, sign_with: Path | None
) -> None:
    """Fail before minutes are spent."""
    check_writable(out)
    refuse_run(out / "model.onnx")
    if tensorrt is not None:
        if form.precision == "int8" and form.int8_for is Int8For.cpu:
            raise DataError("TensorRT builds no int8 file for CPUs: give --for gpu")
        require_gpu_software()
    if sign_with is not None:
        sign(ModelPair(out / "model.onnx", b"", b""), sign_with)


def _require_classes(part: LabeledImages | None, labels: tuple[str, ...]) -> None:
    if part is not None and part.classes != labels:
        raise DataError(
            f"{part.name} has other classes than the run: thresholds cannot be fitted on it again"
        )


def _calibration_frames(
    folder: Path | None,
    data: LabeledImages | None,
    spec: PreprocessSpec,
    *,
    skip_damaged: bool = False,
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
    count = min(len(paths), MOST_FRAMES)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    return _read_frames(chosen, spec, skip_damaged=skip_damaged)[0]


def _read_frames(
    paths: Sequence[Path], spec: PreprocessSpec, *, skip_damaged: bool
) -> tuple[NDArray[np.uint8], list[int]]:
    """The pictures, and which of them could be read."""
    frames, read = [], []
    for number, path in enumerate(paths):
        try:
            frames.append(preprocess(read_image(path), spec))
            read.append(number)
        except CaptureError as error:  # noqa: PERF203 (each picture may be the damaged one)
            if not skip_damaged:
                raise CaptureError(f"{error}; --skip-damaged leaves such pictures out") from error
            _log.warning("left out: %s", error)
    if not frames:
        raise DataError(f"none of {len(paths)} pictures can be read, the first is {paths[0]}")
    return np.stack(frames), read


def _export(
    model: CausalRecognizer, spec: ModelSpec, *, norms: bool, explain: bool
) -> tuple[onnx.ModelProto, FusionReport, ModelSpec]:
    """The graph, what was folded, and the spec with what its outputs beside the scores mean."""
    if not explain:
        return *export_fused(model, spec.preprocess, norms=norms), spec
    graph, fusion, meaning = export_explained(model, spec.preprocess, norms=norms)
    if meaning.training is not None:
        seen_by = replace(meaning.training, pictures=spec.provenance.num_train_images)
        meaning = replace(meaning, training=seen_by)
    return graph, fusion, replace(spec, explanation=meaning)


def _frames_and_spec(
    path: Path,
    content: bytes,
    part: LabeledImages | None,
    spec: ModelSpec,
    *,
    refit: bool,
    skip_damaged: bool,
) -> tuple[NDArray[np.uint8], ModelSpec]:
    """What to verify on, and the spec, where wanted with thresholds that fit the file's own scores."""
    frames = synthetic_frames(spec.preprocess.size_hw, _SYNTHETIC_FRAMES)
    if part is None:
        return frames, spec
    paths = [image.path for image in part.images]
    _log.info("reading %s to compare on", counted(len(paths), "picture"))
    own, read = _read_frames(paths, spec.preprocess, skip_damaged=skip_damaged)
    part = replace(part, images=tuple(part.images[k] for k in read))
    if refit:
        spec = _refit(path, content, own, part, spec)
    return np.concatenate([frames, own]), spec


def _refit(
    path: Path, content: bytes, frames: NDArray[np.uint8], part: LabeledImages, spec: ModelSpec
) -> ModelSpec:
    """Thresholds that fit the quantised scores, by the rule that the trained ones were fitted by."""
    _log.info("fitting the thresholds to its own scores, on %s", counted(len(frames), "picture"))
    with closing(load_backend(path, content, provider="cpu")) as backend:
        scores = np.concatenate([backend.infer(frame[None]) for frame in frames])
    fit = spec.threshold_fit
    rule = ThresholdRule.parse(fit.rule)
    return with_refitted_thresholds(
        spec, scores, part, rule, shrinkage=fit.shrinkage, precision="int8"
    )


def _verify(
    path: Path,
    content: bytes,
    model: CausalRecognizer,
    specs: tuple[ModelSpec, ModelSpec],
    frames: NDArray[np.uint8],
    form: _Form,
    *,
    explain: bool,
) -> BuiltFile:
    """The file's entry for the spec; `specs`: as trained, and with the file's own thresholds."""
    trained, spec = specs
    parity, golden = verify(
        path,
        content,
        DeployModel(model, spec.preprocess).eval(),
        spec,
        frames,
        precision=form.precision,
        trained_thresholds=trained.thresholds,
        max_flips=form.max_flips,
    )
    if explain:
        _log.info("holding what explains each score against that score")
        verify_explanation(path, content, spec, frames[:_SYNTHETIC_FRAMES], form.precision)
    return BuiltFile(
        sha256=sha256_of(content),
        runtime="onnx",
        precision=form.precision,
        parity=parity,
        golden=golden,
    )


def _write(
    out: Path,
    files: dict[Path, bytes],
    spec: ModelSpec,
    fusion: FusionReport,
    sign_with: Path | None,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(fusion.to_json(), indent=2)
    spec_file = spec_path(next(iter(files)))
    card = card_beside(spec_file, spec)
    if not card:
        _log.warning(
            "%s has words of your own and stays as it is: look whether they hold", out / CARD
        )
    beside = {spec_file: spec.to_json(), out / "fusion.json": text.encode()}
    write_together(files | beside | card)
    for path in files:
        signature_path(path).unlink(missing_ok=True)  # of what lay there before
        if sign_with is not None:
            sign_beside(path, sign_with)
