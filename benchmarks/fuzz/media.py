"""`python -m benchmarks.fuzz.media`: damage pictures, videos, configurations and training data.

Each is read as far as it goes, or refused with an error of our own: nothing crashes, hangs or takes all
memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Annotated, Any

import av
import numpy as np
import PIL
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.fuzz.__main__ import Worker, run_cases
from benchmarks.fuzz.mutations import OF_BYTES, OF_JSON
from train.reporting import exit_on_error

_PICTURES = ("jpg", "png", "webp", "tif", "bmp", "ppm", "avif")
_FILMS = {  # name: codec, pixel format
    "h264.mp4": ("libx264", "yuv420p"),
    "mpeg4.mkv": ("mpeg4", "yuv420p"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "mpeg2.ts": ("mpeg2video", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "prores.mov": ("prores_ks", "yuv422p10le"),
}
_CONFIG = """
[engine]
path = "model"
[[sources]]
name = "door"
uri = "test://"
masks = [[[0.0, 0.0], [0.4, 0.0], [0.4, 0.3]]]
active = ["mon-fri 08:00-18:30"]
[[sinks]]
kind = "events"
path = "e.jsonl"
[limits]
max_batch = 4
"""
_COCO = {
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "iscrowd": 0}],
}
_OWN = {
    "classes": ["cat", "dog"],
    "images": [
        {"file": "a.png", "split": "train", "labels": ["cat"]},
        {"file": "b.png", "split": "val", "labels": []},
    ],
}


def write_seeds(folder: Path) -> list[Path]:
    """Write a small whole file of each kind; data sets are folders of their own."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (48, 64, 3), np.uint8)
    seeds = []
    for suffix in _PICTURES:
        path = folder / f"x.{suffix}"
        Image.fromarray(picture).save(path)
        seeds.append(path)
    for name, (codec, pixels) in _FILMS.items():
        _write_film(folder / name, codec, pixels, random)
        seeds.append(folder / name)
    (folder / "device.toml").write_text(_CONFIG)
    seeds.append(folder / "device.toml")
    for name, record in {"labels.json": _OWN, "annotations/instances_train.json": _COCO}.items():
        path = folder / Path(name).stem / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record))
        for file in "ab":
            Image.fromarray(picture).save(folder / Path(name).stem / f"{file}.png")
        seeds.append(path)
    return seeds


def _write_film(path: Path, codec: str, pixels: str, random: np.random.Generator) -> None:
    noise = random.integers(0, 256, (96, 256, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
        for number in range(30):
            shown: NDArray[np.uint8] = np.ascontiguousarray(noise[:, number : number + 128])
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def fuzz(
    seeds: list[Path],
    cases: range,
    folder: Path,
    *,
    report: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Read every case.

    Args:
        seeds: Whole files to damage.
        cases: Numbers to draw from.
        folder: To write damaged files to.
        report: Told how many cases were done since.

    Returns:
        A JSON-ready record: outcomes by kind of file, and every case that went wrong.
    """
    worker = Worker({**os.environ})
    outcomes: dict[str, Counter[str]] = {}
    wrong: list[dict[str, Any]] = []
    try:
        for number in cases:
            random = Random(number)
            seed = random.choice(seeds)
            mutations = (*OF_BYTES, *OF_JSON) if seed.suffix == ".json" else OF_BYTES
            mutate = random.choice(mutations)
            path = _home_of(seed, folder)
            path.write_bytes(mutate(random, seed.read_bytes(), random.choice(seeds).read_bytes()))
            outcome = worker.open(path)
            if outcome.startswith(("untyped", "crash", "hang")):
                wrong.append(
                    {"case": number, "what": f"{seed.name}: {mutate.__name__}", "outcome": outcome}
                )
            outcomes.setdefault(seed.name, Counter())[outcome.split(":")[0]] += 1
            report(1)
    finally:
        worker.close()
    return {
        "cases": len(cases),
        "av": av.__version__,
        "pillow": PIL.__version__,
        "outcomes": {name: dict(sorted(found.items())) for name, found in sorted(outcomes.items())},
        "wrong": wrong,
    }


def _home_of(seed: Path, folder: Path) -> Path:
    """Where a damaged file lies: beside what belongs to it."""
    if seed.suffix != ".json":
        return folder / seed.name
    root = next(parent for parent in seed.parents if parent.name == seed.stem)
    copy = folder / root.name
    shutil.copytree(root, copy, dirs_exist_ok=True)
    return copy / seed.relative_to(root)


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    cases: Annotated[int, typer.Option(min=1, help="Damaged files to read.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="Number of the first.")] = 0,
) -> None:
    """Damage pictures, videos, configurations and training data, and read every one.

    Example: python -m benchmarks.fuzz.media --out fuzz.json
    """
    run_cases(out, range(first, first + cases), "reading", write_seeds, fuzz)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
