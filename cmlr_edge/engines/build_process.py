"""The process that builds one engine, in a folder.

Reads model.onnx and options.json there; writes model.engine, timing.cache and report.json, or
error.txt. Started by `cmlr_edge.engines.builder`; everything of NVIDIA's happens here.
"""

from __future__ import annotations

import importlib
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmlr_edge.backends.tensorrt import load_plugin
from cmlr_edge.backends.tensorrt_logger import logger_of
from cmlr_edge.engines.builder import BuildOptions, BuildReport
from cmlr_edge.engines.dla import WHERE, refusal
from cmlr_edge.engines.preflight import version_of
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.driver import find_gpu
from cmlr_edge.machine.facts import board_name
from cmlr_edge.model.strict_json import from_json

_MIB = 2**20


def main(folder_name: str) -> int:
    """Build; 0, or 1 with the reason in error.txt."""
    folder = Path(folder_name)
    options = from_json(BuildOptions, json.loads((folder / "options.json").read_text()))
    try:
        _build(folder, options)
    except CmlrError as error:
        (folder / "error.txt").write_text(str(error))
        return 1
    return 0


def _build(folder: Path, options: BuildOptions) -> None:
    trt = importlib.import_module(options.module)
    logger = logger_of(trt)
    if options.plugin:
        load_plugin(trt, Path(options.plugin))
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    _parse(parser, (folder / "model.onnx").read_bytes(), trt.__version__)
    plugin_layers = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in _layers(network))
    if options.plugin and plugin_layers == 0:
        raise EngineError("no node of the model became a plugin layer: build with --no-plugin")
    config = builder.create_builder_config()
    _add_profile(builder, network, config, options.batch)
    dla_layers = _configure(trt, builder, network, config, options)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT {trt.__version__} cannot build the engine: {logger.take()}")
    content = bytes(plan)
    (folder / "model.engine").write_bytes(content)
    if options.timing_cache:
        (folder / "timing.cache").write_bytes(bytes(config.get_timing_cache().serialize()))
    report = BuildReport(
        tensorrt=trt.__version__,
        plugin_layers=plugin_layers,
        dla_layers=dla_layers,
        layers=_built_precisions(trt, logger, content) or _network_precisions(network),
        peak_bytes=_peak_bytes(),
    )
    (folder / "report.json").write_text(json.dumps(asdict(report)))


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def _strongly_typed(trt: Any) -> int:
    """The flag of TensorRT 10; 11 knows nothing else."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(parser: Any, content: bytes, version: str) -> None:
    if not parser.parse(content):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(f"TensorRT {version} cannot read the model: {' / '.join(errors)}")


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]


def _add_profile(builder: Any, network: Any, config: Any, batch: tuple[int, int, int]) -> None:
    profile, frames = builder.create_optimization_profile(), network.get_input(0)
    item = tuple(frames.shape)[1:]
    profile.set_shape(frames.name, *((number, *item) for number in batch))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT does not take the batch profile {batch}")


def _configure(trt: Any, builder: Any, network: Any, config: Any, options: BuildOptions) -> int:
    """Apply the options; how many layers go to the DLA."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the layers' precision
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.compute_capability is not None:
        name = "SM" + options.compute_capability.replace(".", "")
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
    if options.timing_cache is not None:
        file = Path(options.timing_cache)
        cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
        if not config.set_timing_cache(cache, ignore_mismatch=False):
            raise EngineError(f"{file} is a timing cache of another machine: give another file")
    if options.dla_core is None:
        return 0
    if not 0 <= options.dla_core < builder.num_DLA_cores:
        raise EngineError(
            f"DLA core {options.dla_core} was asked for, this machine has "
            f"{builder.num_DLA_cores}: leave --useDLACore away. {WHERE}"
        )
    capability = options.compute_capability or find_gpu().compute_capability
    if why := refusal(capability, version_of(trt.__version__), board_name() or "", options.batch):
        raise EngineError(why)
    config.default_device_type, config.DLA_core = trt.DeviceType.DLA, options.dla_core
    if options.allow_gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    return sum(bool(config.can_run_on_DLA(layer)) for layer in _layers(network))


def _network_precisions(network: Any) -> dict[str, int]:
    """Of what each layer of the strongly typed network computes."""
    outputs = [layer.get_output(0) for layer in _layers(network) if layer.num_outputs]
    return dict(Counter(str(output.dtype).rpartition(".")[2] for output in outputs))


def _built_precisions(trt: Any, logger: Any, content: bytes) -> dict[str, int]:
    """What the engine inspector says; nothing without a GPU. Unverified on hardware."""
    from cmlr_edge.machine.driver import find_gpu

    try:
        find_gpu()
    except EngineError:
        return {}
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(f"TensorRT cannot load what it built: {logger.take()}")
    kind = trt.LayerInformationFormat.JSON
    text = engine.create_engine_inspector().get_engine_information(kind)
    formats: Counter[str] = Counter()
    for layer in json.loads(text).get("Layers", []):
        for output in layer.get("Outputs", [])[:1] if isinstance(layer, dict) else []:
            formats[str(output.get("Format/Datatype", output.get("Datatype", "unknown")))] += 1
    return dict(formats)
