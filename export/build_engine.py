"""Checkpoint -> model.onnx, model.json and fusion.json, verified against the training model before it is written.

python export/build_engine.py --checkpoint runs/first --out models/first --data photos

On a Jetson `--target tensorrt` adds model.engine, verified against model.onnx.
"""

from __future__ import annotations

import hashlib
import json
import sys
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

from cmlr_edge.capture.images import read_image
from cmlr_edge.engine_builder import BuildOptions
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.model_spec import BuiltFile, ModelSpec, PreprocessSpec, spec_path
from cmlr_edge.preflight import plugin_library, require_gpu_software
from cmlr_edge.preprocess import preprocess
from cmlr_edge.strict_json import write_atomically
from export.deploy import DeployModel
from export.engine import build_engine_file
from export.fuse import fuse
from export.onnx_graph import export_onnx, store_as_float16
from export.precision import to_float16
from export.verify import synthetic_frames, verify
from train.checkpoint import load_config, load_model
from train.datasets import read_dataset

_SYNTHETIC_FRAMES = 8
_stderr = Console(stderr=True)


Precision = Literal["fp32", "fp16"]


class Target(str, Enum):
    """What to build."""

    onnx = "onnx"
    tensorrt = "tensorrt"


def build_engine(
    checkpoint: Path,
    out: Path,
    *,
    data: Path | None = None,
    split: str = "val",
    precision: Precision = "fp32",
    tensorrt: BuildOptions | None = None,
    max_flips: float | None = None,
) -> ModelSpec:
    """Export a run, verify it, and write it.

    Args:
        checkpoint: Run folder that `python -m train fit` wrote.
        out: Folder to write model.onnx and model.json to; created.
        data: Pictures to verify on as well; seeded patterns are always used.
        split: Of `data`.
        precision: "fp16" writes a typed float16 graph.
        tensorrt: Build model.engine as well, for the GPU of this machine.
        max_flips: Share of label decisions in which it may differ from model.onnx.

    Returns:
        The spec as written; what fusion saved is written to fusion.json beside it.

    Raises:
        DataError: The checkpoint or the data is missing or damaged.
        EngineError: The exported model disagrees with the training model, or the engine with the
            exported model, or there is no GPU for it; nothing is written.
        DependencyError: TensorRT or cuda-python is missing.
    """
    if tensorrt is not None:
        require_gpu_software()  # known before minutes are spent
    model, spec = load_model(checkpoint)
    deploy = DeployModel(model, spec.preprocess).eval()
    fused, report = fuse(model, spec.preprocess)
    onnx_model = _in_precision(
        export_onnx(fused, spec.preprocess.size_hw),
        precision,
        narrow_storage=load_config(checkpoint).weight_storage == "float16",
    )
    content, path = onnx_model.SerializeToString(), out / "model.onnx"
    frames = synthetic_frames(spec.preprocess.size_hw, _SYNTHETIC_FRAMES)
    if data is not None:
        frames = np.concatenate([frames, _read_frames(data, split, spec.preprocess)])
    parity, golden = verify(path, content, deploy, spec, frames, precision=precision)
    built = BuiltFile(
        sha256=hashlib.sha256(content).hexdigest(),
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
    out.mkdir(parents=True, exist_ok=True)
    for file, data_of_file in files.items():
        write_atomically(file, data_of_file)
    spec.save(spec_path(path))
    write_atomically(out / "fusion.json", json.dumps(report.to_json(), indent=2).encode())
    return spec


def _in_precision(
    model: onnx.ModelProto, precision: Precision, *, narrow_storage: bool
) -> onnx.ModelProto:
    if precision == "fp16":
        return to_float16(model)
    return store_as_float16(model) if narrow_storage else model


def _read_frames(data: Path, split: str, spec: PreprocessSpec) -> NDArray[np.uint8]:
    images = read_dataset(data).split(split).images
    return np.stack([preprocess(read_image(image.path), spec) for image in images])


def main(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that `python -m train fit` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write model.onnx and model.json to.")],
    data: Annotated[
        Path | None, typer.Option(help="Data folder: verify on its pictures too.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data to verify on.")] = "val",
    fp16: Annotated[bool, typer.Option("--fp16", help="Write a typed float16 graph.")] = False,
    target: Annotated[
        Target, typer.Option(help="tensorrt: build model.engine too, for the GPU here.")
    ] = Target.onnx,
    batch: Annotated[str, typer.Option(help="Smallest, tuned and largest batch.")] = "1,1,8",
    no_plugin: Annotated[bool, typer.Option(help="Engine without our attention kernel.")] = False,
    timing_cache: Annotated[
        str | None, typer.Option("--timingCacheFile", help="Read, and written after a build.")
    ] = None,
    dla_core: Annotated[int | None, typer.Option("--useDLACore", help="Of a Jetson Orin.")] = None,
    gpu_fallback: Annotated[
        bool, typer.Option("--allowGPUFallback", help="For layers the DLA does not have.")
    ] = False,
    workspace: Annotated[int | None, typer.Option(help="MiB for TensorRT's scratch.")] = None,
    max_flips: Annotated[
        str | None, typer.Option(help="Share of label decisions that may flip, such as 0.5%.")
    ] = None,
) -> None:
    """Export a trained run for the SDK.

    Example: python export/build_engine.py --checkpoint runs/first --out models/first
    """
    try:
        options = None
        if target is Target.tensorrt:
            options = BuildOptions(
                batch=_read_batch(batch),
                plugin=None if no_plugin else str(plugin_library()),
                timing_cache=timing_cache,
                dla_core=dla_core,
                allow_gpu_fallback=gpu_fallback,
                workspace_mib=workspace,
            )
        with _stderr.status("exporting and verifying"):
            spec = build_engine(
                checkpoint,
                out,
                data=data,
                split=split,
                precision="fp16" if fp16 else "fp32",
                tensorrt=options,
                max_flips=None if max_flips is None else _read_share(max_flips),
            )
    except CmlrError as error:
        _stderr.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    for name, built in spec.files.items():
        _stderr.print(
            f"wrote {out / name}: on {built.parity.num_images} images the largest score difference "
            f"is {built.parity.max_score_difference:.2g}, {built.parity.decision_flips} decisions "
            "differ"
        )


def _read_batch(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 3 or text.count(",") != 2:
        raise EngineError(f"--batch is {text!r}: expected smallest,tuned,largest such as 1,1,8")
    return numbers[0], numbers[1], numbers[2]


def _read_share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise EngineError(f"--max-flips is {text!r}: expected a share such as 0.5% or 0.005")
    return share


if __name__ == "__main__":
    typer.run(main)
