"""Builds an engine again from the ONNX file beside it, on the machine that is to run it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.golden import check_golden, golden_frames
from cmlr_edge.backends.plugin import plugin_library
from cmlr_edge.engines.builder import BuildOptions, BuildReport, build_plan
from cmlr_edge.engines.preflight import preflight, require_gpu_software
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.driver import Gpu
from cmlr_edge.model.spec import BuiltFile, EngineBuild, ModelSpec, ParityReport, spec_path
from cmlr_edge.model.strict_json import write_atomically


def rebuild_where_needed(path: Path) -> bool:
    """Build the engine at `path` unless the one that is there passes preflight.

    Its spec must list it, or the `.onnx` file of the same name that it is built from. Engine and
    spec are replaced once the new engine has passed its golden self-test.

    Returns:
        Whether it was built.

    Raises:
        SpecError: There is no spec.
        EngineError: No GPU here, no ONNX file, or the build or the self-test failed.
        DependencyError: TensorRT or cuda-python is not installed.
    """
    spec = ModelSpec.load(spec_path(path))
    old = spec.files.get(path.name)
    if old is not None and path.is_file():
        findings = preflight(path, path.read_bytes(), old)
        if all(finding.state != "failed" for finding in findings):
            return False
    source, onnx = _read_source(spec, path, old)
    gpu = require_gpu_software()
    with_plugin = old is None or old.engine is None or old.engine.plugin_version is not None
    options = BuildOptions(
        batch=old.engine.batch if old is not None and old.engine is not None else (1, 1, 8),
        plugin=str(plugin_library()) if with_plugin else None,
    )
    plan, report = build_plan(onnx, options)
    engine = engine_build(report, gpu, options, source.name, spec.files[source.name])
    built = replace(
        spec.files[source.name],
        sha256=hashlib.sha256(plan).hexdigest(),
        runtime="tensorrt",
        parity=_check(path, plan, spec, spec.files[source.name], engine),
        engine=engine,
    )
    write_atomically(path, plan)
    replace(spec, files={**spec.files, path.name: built}).save(spec_path(path))
    return True


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
    if hashlib.sha256(content).hexdigest() != spec.files[source.name].sha256:
        raise EngineError(f"{source} was changed or cut short: copy it and its spec again")
    return source, content


def _check(
    path: Path, plan: bytes, spec: ModelSpec, source: BuiltFile, engine: EngineBuild
) -> ParityReport:
    """The golden sample of the ONNX file, on the new engine."""
    size_hw, golden = spec.preprocess.size_hw, source.golden
    backend = load_backend(path, plan, engine=engine)
    try:
        check_golden(backend, golden, size_hw)
        scores = backend.infer(golden_frames(golden.seed, size_hw))[0]
    finally:
        backend.close()
    expected, thresholds = np.asarray(golden.scores), np.asarray(spec.thresholds)
    flips = (scores >= thresholds) != (expected >= thresholds)
    return ParityReport(1, float(np.abs(scores - expected).max()), int(flips.sum()))
