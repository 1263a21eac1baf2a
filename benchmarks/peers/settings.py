"""`python -m benchmarks.peers.settings`: which of an engine's settings are worth having.

The same network with one setting changed at a time, every variant in a process of its own, in turn. What
the backends set is what this showed to pay.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.peers.turns import take_turns, times_ms
from benchmarks.records import write_json
from cmlr_edge.machine.facts import describe_machine, usable_cores
from cmlr_edge.machine.no_telemetry import import_runtime

RESULTS = Path("benchmarks/results/latency/settings.json")
# By engine: what is changed against what the backends set, by the engine's own names.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "openvino": {
        "as set": {},
        "one thread": {"INFERENCE_NUM_THREADS": 1},
        "threads not pinned": {"ENABLE_CPU_PINNING": False},
        "latency hint, no streams named": {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": None},
        "denormals as zero": {"CPU_DENORMALS_OPTIMIZATION": True},
    },
    "onnxruntime": {
        "as set": {},
        "one thread": {"intra_op_num_threads": 1},
        "threads sleep at once": {"session.intra_op.allow_spinning": "0"},
        "no memory arena": {"enable_cpu_mem_arena": False},
        "no memory pattern": {"enable_mem_pattern": False},
        "denormals as zero": {"session.set_denormal_as_zero": "1"},
        "sum and norm as one node": {"disabled_optimizers": ()},
    },
}


def variant_names() -> list[str]:
    """Every "engine: variant"."""
    return [f"{engine}: {variant}" for engine, found in VARIANTS.items() for variant in found]


def open_variant(name: str, path: Path) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Load a network with one variant's settings; the result maps uint8 (1, H, W, 3) to scores."""
    engine, variant = name.split(": ")
    changed = VARIANTS[engine][variant]
    return (_openvino if engine == "openvino" else _onnxruntime)(path, changed)


def compile_openvino(path: Path, changed: dict[str, Any]) -> Any:
    """A network as the backend compiles it for one image, but for what is changed; None leaves out."""
    openvino = import_runtime("openvino")

    from cmlr_edge.backends.openvino import supported_precisions
    from cmlr_edge.backends.openvino_attention import attention_extensions

    core = openvino.Core()
    for extension in attention_extensions():
        core.add_extension(extension)
    model = core.read_model(path)
    model.reshape([1, *list(model.input(0).partial_shape)[1:]])
    settings = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": usable_cores(),
        "INFERENCE_PRECISION_HINT": supported_precisions()[0],
    } | changed
    settings = {name: value for name, value in settings.items() if value is not None}
    return core.compile_model(model, "CPU", settings)


def _openvino(path: Path, changed: dict[str, Any]) -> Callable[..., NDArray[np.float32]]:
    openvino = import_runtime("openvino")

    request = compile_openvino(path, changed).create_infer_request()

    def run(pixels: NDArray[Any]) -> NDArray[np.float32]:
        request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
        request.infer()
        scores: NDArray[np.float32] = request.get_output_tensor(0).data
        return scores

    return run


def _onnxruntime(path: Path, changed: dict[str, Any]) -> Callable[..., NDArray[np.float32]]:
    import onnxruntime

    from cmlr_edge.backends.onnxruntime import SLOWER

    disabled = changed.get("disabled_optimizers", SLOWER)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    for name, value in changed.items():
        if name.startswith("session."):
            options.add_session_config_entry(name, value)
        elif name != "disabled_optimizers":
            setattr(options, name, value)
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def main(
    folders: Annotated[list[Path], typer.Argument(help="That benchmarks.peers has prepared.")],
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each variant.")] = 20,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 0.3,
    out: Annotated[Path, typer.Option(help="Record.")] = RESULTS,
) -> None:
    """Time every variant on every network; write the record and print a table."""
    record: dict[str, Any] = {"machine": describe_machine(), "networks": {}}
    table = Table("variant", *[folder.name for folder in folders])
    for folder in folders:
        workers, failed = take_turns(
            variant_names(), folder, folder / "settings.log", rounds=rounds, seconds=seconds
        )
        times = {worker.name: times_ms(worker) for worker in workers}
        record["networks"][folder.name] = {"ms": times, "failed": failed}
        write_json(out, record)
    for name in variant_names():
        found = [network["ms"].get(name) for network in record["networks"].values()]
        table.add_row(name, *[f"{t['p50']:.2f} ({t['min']:.2f})" if t else "-" for t in found])
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
