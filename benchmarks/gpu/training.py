"""Training on a real GPU: that it does what the CPU does, and how fast it goes."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu.build import ROOT, run
from benchmarks.gpu.device import import_torch
from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place, use_extensions
from cmlr_edge.errors import EngineError
from cmlr_edge.model.files import write_atomically

LABELS, BATCH, STEPS = 80, 32, 30
_BACKBONE = "tf_efficientnet_lite0"
NETWORKS = ((_BACKBONE, 320), ("resnet50", 448))
_CPU = {"CUDA_VISIBLE_DEVICES": ""}
_SHORT = ("--recipe", "none", "--image-size", "160", "--batch-size", "16", "--epochs", "4")
_RECIPES = ("few", "thousands")  # backbone frozen or slow, tokens of two stages, context
_COPIES = 4  # of each picture, for epochs that last longer than their beginning
_WORKERS = (0, 8, 16)


def fit(report: Report, place: Place) -> None:
    """`train fit` in each precision beside one on the CPU, a resumed run, and `evaluate`."""
    data = pictures(place.folder)
    report.check("weights", lambda: weights(place.folder)[1], measures=True)
    ways: dict[str, tuple[Any, ...]] = {
        "on the CPU": ("amp=off", _CPU), "amp off": ("amp=off", {}), "bf16": ("amp=bf16", {}),
        "fp16": ("amp=fp16", {}), **{
            f"recipe {name}": ("amp=bf16", {}, "--recipe", name) for name in _RECIPES
        },
    }  # fmt: skip
    with ThreadPoolExecutor(len(ways) + 1) as pool:
        runs = {
            pool.submit(_fit, data, _run_folder(place, name), *way): f"train fit, {name}"
            for name, way in ways.items()
        }
        twice = pool.submit(_fit_twice, data, _run_folder(place, "resumed"))
        runs[twice] = "stopped after an epoch, and resumed"
        for done in as_completed(runs):  # what a limit ends leaves the lines of the others
            report.check(runs[done], done.result, measures=True)
    run_folder, cause = str(_run_folder(place, "amp off")), _labels(data)["classes"][0]
    evaluate = partial(_train, "evaluate", "--checkpoint", run_folder, "--data", str(data))
    report.check("evaluate", evaluate, measures=True)
    about = ["--checkpoint", run_folder, "--data", str(data), "--cause", cause]
    explain = partial(_train, "explain", *about, "--out", str(place.folder / "explained"))
    report.check("explain", explain, measures=True)


def _run_folder(place: Place, name: str) -> Path:
    return place.folder / f"run-{name.replace(' ', '-')}"


def weights(folder: Path) -> tuple[list[str], str]:
    """Options of `train fit` for the backbone's weights, and what they are.

    A lent machine reaches no hub: without their package they are random, and train as fast.
    """
    from train.network.backbones import WEIGHT_PACKAGES, create_backbone

    package, module, _ = WEIGHT_PACKAGES[_BACKBONE]
    if find_spec(module) is not None:
        return [], f"of ImageNet, from {package}"
    import torch
    from safetensors.torch import save

    file = folder / f"{_BACKBONE}.safetensors"
    if not file.is_file():
        torch.manual_seed(0)
        network = create_backbone(_BACKBONE, 160, pretrained=False).network
        tensors = {name: t.contiguous() for name, t in network.state_dict().items()}
        write_atomically(file, save(tensors))
    return ["--set", f"model.weights={file}"], f"random: {package} is not installed"


def pictures(folder: Path) -> Path:
    """CMLR_PHOTOS, or made-up pictures with coloured squares, and their labels."""
    if given := os.environ.get("CMLR_PHOTOS"):
        return Path(given)
    import cv2
    import numpy as np

    random, root, entries = np.random.default_rng(0), folder / "pictures", []
    root.mkdir(exist_ok=True)
    names = ["blue", "green", "red"]
    for i in range(256):
        image = random.integers(90, 130, (240, 320, 3), np.uint8)
        present = [c for c in range(3) if random.random() < 0.5]
        for c in present:
            y, x = random.integers(0, 150, 2)
            image[y : y + 80, x : x + 80] = np.eye(3, dtype=np.uint8)[c] * 255
        cv2.imwrite(str(root / f"{i}.jpg"), image)
        split = "train" if i < 192 else "val"
        entries.append({"file": f"{i}.jpg", "split": split, "labels": [names[c] for c in present]})
    (root / "labels.json").write_text(json.dumps({"classes": names, "images": entries}))
    return root


def many_pictures(folder: Path) -> Path:
    """The same, each of the training several times under other names."""
    source, root = pictures(folder), folder / "many-pictures"
    listed = _labels(source)
    copies = []
    for entry in listed["images"]:
        for number in range(_COPIES if entry["split"] == "train" else 1):
            copy = root / str(number) / entry["file"]
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                shutil.copyfile(source / entry["file"], copy)
            copies.append({**entry, "file": f"{number}/{entry['file']}"})
    (root / "labels.json").write_text(json.dumps({**listed, "images": copies}))
    return root


def _labels(data: Path) -> dict[str, Any]:
    listed: dict[str, Any] = json.loads((data / "labels.json").read_text())
    return listed


def _train(*arguments: str, **environment: str) -> str:
    """The last words of a command, and its seconds."""
    started = time.perf_counter()
    wide = {"COLUMNS": "400", **environment}  # a line of the log is a line
    said = run([sys.executable, "-m", "train", *arguments], errors=True, **wide)
    return f"in {time.perf_counter() - started:.0f} s: {' '.join(said.split())[-700:]}"


def _fit(data: Path, out: Path, settings: str, environment: dict[str, str], *more: str) -> str:
    """A run anew, unless it is to go on with: what an earlier call left there would be refused."""
    if "--resume" not in more:
        shutil.rmtree(out, ignore_errors=True)
    return _train(*_fit_arguments(data, out, settings), *more, **environment)


def _fit_arguments(data: Path, out: Path, settings: str) -> list[str]:
    backbone = ["--set", f"model.backbone={_BACKBONE}", *weights(out.parent)[0]]
    return ["fit", "--data", str(data), "--out", str(out), *backbone, *_SHORT, "--set", settings]


def _fit_twice(data: Path, out: Path) -> str:
    """Interrupt a run, as Ctrl-C does, when the first epoch is kept; then go on with it."""
    shutil.rmtree(out, ignore_errors=True)
    at_first = {**os.environ, "COLUMNS": "400"}
    command = [sys.executable, "-m", "train", *_fit_arguments(data, out, "amp=bf16")]
    with subprocess.Popen(
        command, cwd=ROOT, env=at_first, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2 of" in line:
                process.send_signal(signal.SIGINT)
    return f"ended with {process.returncode}; then {_fit(data, out, 'amp=bf16', {}, '--resume')}"


def loading(report: Report, place: Place) -> None:
    """The same run with more processes that read pictures; the log says images a second."""
    data = many_pictures(place.folder)
    for workers in _WORKERS:
        out = place.folder / f"run-workers-{workers}"
        work = partial(
            _fit, data, out, f"workers={workers}", {}, "--set", "amp=bf16", "--epochs", "2"
        )
        report.check(f"{workers} workers", work, measures=True)


def steps(report: Report, _: Place) -> None:
    """Images a second of forward, backward and step, in each precision and layout."""
    torch = import_torch()
    for network, side in NETWORKS:
        for precision in ("float32", "TF32", "bfloat16"):
            for last in (False, True):
                work = partial(_steps, torch, network, side, precision, channels_last=last)
                name = f"{network} {side}, {precision}{', channels last' if last else ''}"
                report.check(name, work, measures=True)


def compiled(report: Report, _: Place) -> None:
    """The same under torch.compile, its compilation apart."""
    torch = import_torch()
    network, side = NETWORKS[0]
    for name, wrap in (("as it is", None), ("compiled", torch.compile)):
        work = partial(_steps, torch, network, side, "bfloat16", channels_last=True, wrap=wrap)
        report.check(f"{network} {side}, bfloat16, {name}", work, measures=True)


def build_network(backbone: str, side: int) -> Any:
    """The network to train, random, on the GPU."""
    from train.config import ModelConfig
    from train.network.model import CausalRecognizer

    config = ModelConfig(backbone=backbone, image_size=side, intervention="none")
    return CausalRecognizer(config, LABELS, pretrained=False).cuda().train()


def _steps(
    torch: Any, backbone: str, side: int, precision: str, *, channels_last: bool,
    wrap: Callable[..., Any] | None = None,
) -> str:  # fmt: skip
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
    model = build_network(backbone, side)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    images = torch.randn(BATCH, 3, side, side, device="cuda").to(memory_format=layout)
    targets = (torch.rand(BATCH, LABELS, device="cuda") < 0.1).float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    forward = wrap(model) if wrap else model
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(forward(images).decoupled_logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    started = time.perf_counter()
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    warmed, started = time.perf_counter() - started, time.perf_counter()
    for _ in range(STEPS):
        step()
    torch.cuda.synchronize()
    rate = STEPS * BATCH / (time.perf_counter() - started)
    return f"{rate:.0f} images/s; the first five steps took {warmed:.1f} s"


def export(report: Report, place: Place) -> None:
    """Export what stage 11 trained, and hold ONNX Runtime against torch on the GPU."""
    report.check("torch on the GPU", _compare_network)
    report.check("export", partial(_export, place))


def _export(place: Place) -> str:
    run_folder = _run_folder(place, "amp off")
    if not run_folder.is_dir():
        raise Skipped("stage 11 has trained nothing")
    code = "from benchmarks.gpu import training; training.export_with(*__import__('sys').argv[1:])"
    arguments = ["--checkpoint", str(run_folder), "--out", str(place.folder / "export")]
    command = [sys.executable, "-c", code, str(place.extensions), *arguments]
    said = run(command, errors=True, COLUMNS="400")
    return " ".join(said.split())[-300:]


def export_with(extensions: str, *arguments: str) -> None:
    """`export/build_engine.py`, where nothing is installed."""
    use_extensions(Path(extensions))
    script = str(ROOT / "export" / "build_engine.py")
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _compare_network() -> str:
    """The network in float32 on the GPU beside the CPU.

    Raises:
        EngineError: A logit differs by more than 1e-3.
    """
    torch = import_torch()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = build_network(*NETWORKS[0]).eval()
    images = torch.randn(4, 3, NETWORKS[0][1], NETWORKS[0][1])
    with torch.no_grad():
        on_gpu = model(images.cuda()).decoupled_logits.cpu()
        on_cpu = model.cpu()(images).decoupled_logits
    found = float((on_gpu - on_cpu).abs().max())
    if not found <= 1e-3:
        raise EngineError(f"logits differ by {found:.2g}, allowed 1e-3")
    return f"logits differ by {found:.2g}"
