"""Builds an engine again from the ONNX file beside it, on the machine that is to run it."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.golden import check_golden, golden_frames
from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.engines.builder import BuildOptions, BuildReport, build_plan
from cmlr_edge.engines.opening import fit_checks
from cmlr_edge.engines.preflight import require_gpu_software
from cmlr_edge.errors import DependencyError, EngineError
from cmlr_edge.machine.driver import Gpu
from cmlr_edge.model.agreement import MAX_SHARE, Agreement
from cmlr_edge.model.files import require_unchanged, sha256_of, spec_path, write_together
from cmlr_edge.model.spec import BuiltFile, EngineBuild, ModelSpec, ParityReport
from cmlr_edge.model.thresholds import reaches

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHECK_FRAMES = 16  # beside the golden one
_log = logging.getLogger(__name__)


def rebuild_where_needed(path: Path) -> bool:
    """Build the engine at `path` unless the one that is there fits file and machine.

    Its spec must list it, or the `.onnx` file of the same name that it is built from. Engine and
    spec are replaced once the new engine has passed its golden self-test and decides as that file.

    Returns:
        Whether it was built.

    Raises:
        SpecError: There is no spec.
        EngineError: No GPU here, no ONNX file, or the build or the self-test failed, or
            the engine decides otherwise; a label that it says no more is named.
        DependencyError: TensorRT or cuda-python is not installed.
    """
    spec = ModelSpec.load(spec_path(path))
    old = spec.files.get(path.name)
    if old is not None and path.is_file():
        checks = fit_checks(path, path.read_bytes(), old)
        if all(check.state != "failed" for check in checks):
            return False
    source, onnx = _read_source(spec, path, old)
    gpu = require_gpu_software()
    with_plugin = old is None or old.engine is None or old.engine.plugin_version is not None
    options = BuildOptions(
        batch=old.engine.batch if old is not None and old.engine is not None else _batch_of(spec),
        plugin=str(plugin_library()) if with_plugin else None,
    )
    plan, report = build_plan(onnx, options)
    engine = engine_build(report, gpu, options, source.name, spec.files[source.name])
    built = replace(
        spec.files[source.name],
        sha256=sha256_of(plan),
        runtime="tensorrt",
        parity=_check((path, plan, engine), (source, onnx), spec),
        engine=engine,
    )
    grown = replace(spec, files={**spec.files, path.name: built})
    write_together({path: plan, spec_path(path): grown.to_json()})
    return True


def _batch_of(spec: ModelSpec) -> tuple[int, int, int]:
    """Smallest, tuned for and largest of a first build."""
    return (1, 1, 1) if spec.adopted is not None and spec.adopted.one_by_one else (1, 1, 8)


def engine_build(
    report: BuildReport, gpu: Gpu, options: BuildOptions, source: str, source_file: BuiltFile
) -> EngineBuild:
    """What a spec keeps of a build."""
    from cmlr_edge._native import ATTENTION_VERSION

    return EngineBuild(
        tensorrt=report.tensorrt,
        compute_capability=gpu.compute_capability,
        gpu=gpu.name,
        plugin_version=ATTENTION_VERSION if report.plugin_layers else None,
        batch=options.batch,
        source=source,
        source_sha256=source_file.sha256,
        layers=report.layers,
        dla_core=options.dla_core,
        dla_layers=report.dla_layers,
    )


def _read_source(spec: ModelSpec, path: Path, old: BuiltFile | None) -> tuple[Path, bytes]:
    named = old.engine.source if old is not None and old.engine is not None else None
    source = path.with_name(named or path.with_suffix(".onnx").name)
    if source.name not in spec.files or not source.is_file():
        raise EngineError(
            f"{path.name} is to be built from {source.name}, which is not beside it or not in its "
            "spec: copy the .onnx file and the spec of one export"
        )
    content = source.read_bytes()
    require_unchanged(source, content, spec.files[source.name].sha256)
    return source, content


def _check(
    built: tuple[Path, bytes, EngineBuild], source: tuple[Path, bytes], spec: ModelSpec
) -> ParityReport:
    """The golden sample of the ONNX file on the new engine, then both on more seeded frames."""
    path, plan, engine = built
    file, size_hw = spec.files[source[0].name], spec.preprocess.size_hw
    seeds = [file.golden.seed, *range(_CHECK_FRAMES)]
    frames = np.concatenate([golden_frames(seed, size_hw) for seed in seeds])
    with closing(load_backend(path, plan, engine=engine)) as backend:
        check_golden(backend, file.golden, size_hw)
        scores = np.concatenate([backend.infer(frame[None]) for frame in frames])
    expected = _expected(source, file, frames)
    scores, thresholds = scores[: len(expected)], np.asarray(spec.thresholds, np.float32)
    found = Agreement.of(spec.labels, reaches(expected, thresholds), reaches(scores, thresholds))
    if objections := found.objections(MAX_SHARE[file.precision]):
        raise EngineError(
            f"{path.name} decides otherwise than {source[0].name}: {'; '.join(objections)}: it was "
            "not written; run the .onnx file, or export the model again in another precision"
        )
    return ParityReport(len(scores), float(np.abs(scores - expected).max()), found.flips)


def _expected(
    source: tuple[Path, bytes], file: BuiltFile, frames: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """What the ONNX file says of the frames; without ONNX Runtime, what its spec says of the first."""
    try:
        with closing(load_backend(*source, provider="cpu")) as backend:
            return np.concatenate([backend.infer(frame[None]) for frame in frames])
    except DependencyError as error:
        _log.warning("the new engine is compared on its golden sample alone: %s", error)
        return np.asarray([file.golden.scores], np.float32)
