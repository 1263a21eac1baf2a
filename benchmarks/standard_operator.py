"""`python -m benchmarks.standard_operator`: a label decoder's attention as ONNX's `Attention`, beside our body.

Tokens are projected, labels attend to them, and what they found is projected: once with our node and its
body of plain operations, once with ONNX's operator (opset 23) in its place. The record says what each
runtime makes of the operator, whether the results are equal, and what a run takes. Pin it to one core:

    taskset -c 1 python -m benchmarks.standard_operator
"""

from __future__ import annotations

import json
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper

from benchmarks import trees
from cmlr_edge.machine.facts import describe_machine, usable_cores
from cmlr_edge.model.files import write_atomically
from export.attention import DOMAIN, NAME, VERSION, add_body

RESULTS = Path("benchmarks/results/latency/standard_operator.json")
ENGINES = {"ort f32": "onnxruntime", "openvino f32": "openvino"}
TOLERANCE = 1e-5
_DIM, _HEADS = 256, 8
_PLAIN, _STANDARD = trees.BASE, "standard operator"


def decoder(labels: int, tokens: int, *, dim: int = _DIM, heads: int = _HEADS) -> onnx.ModelProto:
    """Scores (n, labels) of frames (n, tokens, dim, 3); weights are drawn."""
    tensors = _tensors(labels, tokens, dim)
    node = helper.make_node
    nodes = [
        node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        node("Mul", ["pixels", "scale"], ["unit"]),
        node("Reshape", ["unit", "rows"], ["features"]),
        node("MatMul", ["features", "to_tokens"], ["tokens"]),
        node("MatMul", ["tokens", "to_key"], ["key"]),
        node("MatMul", ["tokens", "to_value"], ["value"]),
        node(
            NAME, ["queries", "key", "value"], ["mixed"], domain=DOMAIN, num_heads=heads,
            scale=(dim // heads) ** -0.5, plugin_version=VERSION, plugin_namespace=DOMAIN,
        ),
        node("MatMul", ["mixed", "to_out"], ["out"]),
        node("ReduceMean", ["out", "axes"], ["logits"], keepdims=0),
        node("Sigmoid", ["logits"], ["scores"]),
    ]  # fmt: skip
    known = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", tokens, dim])
        for name in ("key", "value")
    ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", tokens, dim, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", labels])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
        value_info=known,
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, int(VERSION))]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    add_body(model)
    return model


def _tensors(labels: int, tokens: int, dim: int) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(shape[-2])).astype(np.float32)

    return {
        "queries": random.standard_normal((1, labels, dim)).astype(np.float32),
        "scale": np.array([1 / 255], np.float32),
        "rows": np.array([0, tokens, 3 * dim]),
        "to_tokens": weights(3 * dim, dim),
        "to_key": weights(dim, dim),
        "to_value": weights(dim, dim),
        "to_out": weights(dim, dim) * 16,  # so that scores are anywhere between 0 and 1
        "axes": np.array([2]),
    }


def write_files(model: onnx.ModelProto, folder: Path) -> None:
    """Both ways, named as `trees.time_files` wants them."""
    for name, file in ((_PLAIN, model), (_STANDARD, trees.standard(model))):
        write_atomically(folder / f"{name}.float32.onnx", file.SerializeToString())


def executed(engine: str, path: Path) -> list[str]:
    """The kinds of operations that a runtime makes of a file, as far as attention may be among them."""
    if engine.startswith("openvino"):
        import openvino

        compiled = openvino.Core().compile_model(str(path), "CPU")
        kinds = {
            op.get_rt_info()["layerType"].astype(str)
            for op in compiled.get_runtime_model().get_ops()
        }
    else:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # it warns that the file is for this machine
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
            kinds = {
                node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node
            }
    return sorted(kinds)


def measure(labels: int, tokens: int, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Of both runtimes: whether they run the operator, as what, how equal, how fast."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_files(decoder(labels, tokens), Path(folder))
        for engine, package in ENGINES.items():
            timed, failed = trees.time_files(Path(folder), engine, rounds=rounds, seconds=seconds)
            entry: dict[str, Any] = {"version": version(package), "supported": not failed}
            if failed:
                entry["why"] = failed[_STANDARD]
            else:
                compared = trees.compare(timed)[_STANDARD]
                entry |= compared | {
                    "plain_median_ms": float(np.median(timed[_PLAIN].ms)),
                    "equal": compared["largest_score_difference"] <= TOLERANCE,
                    "operations": executed(engine, Path(folder) / f"{_STANDARD}.float32.onnx"),
                }
            found[engine] = entry
    return found


def main(
    labels: Annotated[str, typer.Option(help="By commas.")] = "80,600",
    tokens: Annotated[str, typer.Option(help="By commas.")] = "49,196",
    rounds: Annotated[int, typer.Option(min=5, help="Turns of each file.")] = 40,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 0.05,
    out: Annotated[Path, typer.Option(help="Results.")] = RESULTS,
) -> None:
    """Measure, and write the record."""
    record: dict[str, Any] = {
        "machine": describe_machine(),
        "cores": usable_cores(),
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rounds": rounds,
        "note": f"label attention of {_HEADS} heads, width {_DIM // _HEADS}, with its projections; "
        "ratio: ONNX's operator to our body; with one core, time that the processor was at work",
        "decoders": {},
    }
    for count in (int(number) for number in labels.split(",")):
        for length in (int(number) for number in tokens.split(",")):
            key = f"{count} labels, {length} tokens"
            found = measure(count, length, rounds=rounds, seconds=seconds)
            record["decoders"][key] = found
            said = {
                n: (e.get("ratio"), e.get("interval"), e["supported"]) for n, e in found.items()
            }
            typer.echo(f"{key}: {said}")
    write_atomically(out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
