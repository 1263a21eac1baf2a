"""ONNX -> TensorRT engine, held against ONNX Runtime before anyone gets it. Needs no PyTorch."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cmlr_edge._native import ATTENTION_DOMAIN, ATTENTION_NAME
from cmlr_edge.backends import load_backend
from cmlr_edge.backends.base import Backend
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.engines.builder import BuildOptions, BuildReport, build_plan
from cmlr_edge.engines.preflight import require_gpu_software
from cmlr_edge.engines.rebuild import engine_build
from cmlr_edge.errors import EngineError
from cmlr_edge.model.agreement import MAX_SHARE, Agreement
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.spec import BuiltFile, EngineBuild, ModelSpec, ParityReport
from cmlr_edge.model.thresholds import reaches
from export.verify import SCORE_TOLERANCE, remedy_of, require_agreement

_BATCH = 8


def build_engine_file(
    path: Path,
    source: Path,
    content: bytes,
    spec: ModelSpec,
    frames: NDArray[np.uint8],
    options: BuildOptions,
    *,
    max_flips: float | None = None,
) -> tuple[bytes, BuiltFile]:
    """Build an engine for this machine's GPU and compare it with the file it comes from.

    Args:
        path: Name of the engine to be.
        source: Name of the ONNX file, which `spec` describes.
        content: That file.
        spec: With thresholds and the entry of `source`.
        frames: uint8 (N, H, W, 3), RGB, to compare on; the golden sample is added.
        options: How to build.
        max_flips: Share of label decisions that may differ; None: as `export.verify` says.

    Returns:
        The engine, and its entry for the spec.

    Raises:
        EngineError: No GPU here, the build failed, or the engine decides otherwise.
        DependencyError: TensorRT or cuda-python is not installed.
    """
    gpu = require_gpu_software()
    plan, report = build_plan(content, options)
    if options.plugin:
        require_plugin_layers(content, report)
    from_onnx = spec.files[source.name]
    engine = engine_build(report, gpu, options, source.name, from_onnx)
    built = verify_engine(path, plan, engine, (source, content), spec, frames, max_flips=max_flips)
    return plan, built


def require_plugin_layers(content: bytes, report: BuildReport) -> None:
    """Refuse an engine where a node that the kernels serve did not become a plugin layer.

    Raises:
        EngineError: The numbers differ.
    """
    graph = onnx.load_from_string(content).graph
    nodes = sum(
        (node.domain, node.op_type) == (ATTENTION_DOMAIN, ATTENTION_NAME) for node in graph.node
    )
    if report.plugin_layers != nodes:
        raise EngineError(
            f"{report.plugin_layers} of {nodes} {ATTENTION_NAME} nodes became plugin layers: the plugin was "
            "not used; reinstall it, or build with --no-plugin"
        )


def verify_engine(
    path: Path,
    plan: bytes,
    engine: EngineBuild,
    source: tuple[Path, bytes],
    spec: ModelSpec,
    frames: NDArray[np.uint8],
    *,
    max_flips: float | None = None,
) -> BuiltFile:
    """Run engine and ONNX file on the same frames: one by one, and in the engine's batches.

    Returns:
        The engine's entry for the spec, with its own golden scores.

    Raises:
        EngineError: As for `compare`.
    """
    from_onnx, largest = spec.files[source[0].name], engine.batch[2]
    golden = golden_frames(from_onnx.golden.seed, spec.preprocess.size_hw)
    frames = np.concatenate([golden, frames])
    with closing(load_backend(*source)) as backend:
        expected = _scores(backend, frames, _BATCH)
    with closing(load_backend(path, plan, engine=engine)) as backend:
        actual = _scores(backend, frames, largest)
        single = _scores(backend, frames[:_BATCH], 1)
    parity = compare(path, actual, expected, spec, from_onnx.precision, max_flips=max_flips)
    alone = compare(path, single, expected[:_BATCH], spec, from_onnx.precision, max_flips=max_flips)
    worst = max(parity.max_score_difference, alone.max_score_difference)
    scores = tuple(round(float(score), 7) for score in actual[0])
    return BuiltFile(
        sha256=sha256_of(plan),
        runtime="tensorrt",
        precision=from_onnx.precision,
        parity=replace(parity, max_score_difference=worst),
        golden=replace(from_onnx.golden, scores=scores),
        engine=engine,
    )


def compare(
    path: Path,
    actual: NDArray[np.float32],
    expected: NDArray[np.float32],
    spec: ModelSpec,
    precision: str,
    *,
    max_flips: float | None = None,
) -> ParityReport:
    """Hold an engine's scores (N, L) against those of ONNX Runtime on the same images.

    Args:
        path: Of the engine to be, for messages.
        actual: Its scores.
        expected: ONNX Runtime's.
        spec: For thresholds.
        precision: Row of the tolerance tables in `export.verify`.
        max_flips: Share of label decisions that may differ; None: as the table says.

    Raises:
        EngineError: A score differs too much or is no number, or too many decisions flip.
    """
    difference, allowed = float(np.abs(actual - expected).max()), SCORE_TOLERANCE[precision]
    if not difference <= allowed:  # a NaN fails too
        raise EngineError(
            f"{path.name} differs from ONNX Runtime by {difference:.3g} on {len(actual)} images, "
            f"allowed {allowed:.3g}: it was not written{remedy_of(precision, spec)}"
        )
    thresholds = np.asarray(spec.thresholds, np.float32)
    found = Agreement.of(spec.labels, reaches(expected, thresholds), reaches(actual, thresholds))
    share = MAX_SHARE[precision] if max_flips is None else max_flips
    require_agreement(path, found, share, of=" of ONNX Runtime", remedy=remedy_of(precision, spec))
    return ParityReport(len(actual), difference, found.flips)


def _scores(backend: Backend, frames: NDArray[np.uint8], batch: int) -> NDArray[np.float32]:
    parts = [backend.infer(frames[i : i + batch]) for i in range(0, len(frames), batch)]
    return np.concatenate(parts)
