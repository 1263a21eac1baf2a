"""Checkpoint -> model.onnx, model.json and fusion.json, verified against the training model before it is written.

python export/build_engine.py --checkpoint runs/first --out models/first --data photos
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
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
from cmlr_edge.errors import CmlrError
from cmlr_edge.model_spec import BuiltFile, ModelSpec, PreprocessSpec, spec_path
from cmlr_edge.preprocess import preprocess
from cmlr_edge.strict_json import write_atomically
from export.deploy import DeployModel
from export.fuse import fuse
from export.onnx_graph import export_onnx, store_as_float16
from export.precision import to_float16
from export.verify import synthetic_frames, verify
from train.checkpoint import load_config, load_model
from train.datasets import read_dataset

_SYNTHETIC_FRAMES = 8
_stderr = Console(stderr=True)


Precision = Literal["fp32", "fp16"]


def build_engine(
    checkpoint: Path,
    out: Path,
    *,
    data: Path | None = None,
    split: str = "val",
    precision: Precision = "fp32",
) -> ModelSpec:
    """Export a run, verify it, and write it.

    Args:
        checkpoint: Run folder that `python -m train fit` wrote.
        out: Folder to write model.onnx and model.json to; created.
        data: Pictures to verify on as well; seeded patterns are always used.
        split: Of `data`.
        precision: "fp16" writes a typed float16 graph.

    Returns:
        The spec as written; what fusion saved is written to fusion.json beside it.

    Raises:
        DataError: The checkpoint or the data is missing or damaged.
        EngineError: The exported model disagrees with the training model; nothing is written.
    """
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
    spec = replace(spec, files={path.name: built})
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
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
) -> None:
    """Export a trained run for the SDK.

    Example: python export/build_engine.py --checkpoint runs/first --out models/first
    """
    try:
        with _stderr.status("exporting and verifying"):
            precision: Precision = "fp16" if fp16 else "fp32"
            spec = build_engine(checkpoint, out, data=data, split=split, precision=precision)
    except CmlrError as error:
        _stderr.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    parity = spec.files["model.onnx"].parity
    _stderr.print(
        f"wrote {out / 'model.onnx'} and its spec: on {parity.num_images} images the largest score "
        f"difference is {parity.max_score_difference:.2g}, {parity.decision_flips} decisions differ"
    )


if __name__ == "__main__":
    typer.run(main)
