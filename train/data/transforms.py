"""Training input: the deployed preprocessing, and augmentation around it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import CaptureError
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess
from train.data.base import LabeledImages
from train.data.loading import BatchReader, DecodedPictures

_TO_YIQ = torch.tensor(
    [[0.2989, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_ROOM = 1.25  # augmentation crops from an image this much larger than the model's input


def build_augmentation(strength: str, size_hw: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """Choose random changes of a uint8 image (3, S, S) that keep its labels true.

    Args:
        strength: "none", "flip", "crop" (any part from 8 % on, as ImageNet networks are trained),
            "standard" or "strong".
        size_hw: Of the result.
    """
    resize = v2.Resize(size_hw, antialias=True)
    if strength == "none":
        return v2.Compose([resize])
    if strength == "flip":
        return v2.Compose([resize, v2.RandomHorizontalFlip()])
    shape = size_hw[1] / size_hw[0]  # pictures have it already: they are stretched to the input
    ratio = (0.75 * shape, 1.33 * shape)
    smallest = {"crop": 0.08, "standard": 0.5, "strong": 0.3}[strength]
    steps: list[Any] = [
        v2.RandomResizedCrop(size_hw, scale=(smallest, 1.0), ratio=ratio, antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    if strength == "strong":
        steps.append(v2.RandAugment(num_ops=2, magnitude=7))
        steps.append(v2.RandomErasing(p=0.5, scale=(0.02, 0.15)))
    elif strength == "standard":
        steps.append(ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02))
    return v2.Compose(steps)


class ColorJitter(nn.Module):
    """Random brightness, contrast, saturation and hue in one product over the colours.

    torchvision's goes through HSV for the hue and over the picture once for each change: at 448
    pixels 18 of 24 ms. Here hue turns the two chroma axes of YIQ, which for small angles looks the
    same; factors are drawn from the same ranges.
    """

    def __init__(
        self, *, brightness: float, contrast: float, saturation: float, hue: float
    ) -> None:
        """Each is the largest change: of a factor from 1, for `hue` in turns of the circle."""
        super().__init__()
        self._ranges = torch.tensor([brightness, contrast, saturation, hue])

    def forward(self, image: Tensor) -> Tensor:
        """Change a uint8 image (3, H, W)."""
        drawn = (2 * torch.rand(4) - 1) * self._ranges
        brightness, contrast, saturation = (1 + drawn[:3]).tolist()
        return adjust_colors(image, brightness, contrast, saturation, float(drawn[3]))


def adjust_colors(
    image: Tensor, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    """Change a uint8 image (3, H, W) by three factors, and the hue by a share of the circle."""
    angle, grey = -2 * np.pi * hue, _TO_YIQ[:1].expand(3, 3)
    turn = torch.eye(3)
    turn[1:, 1:] = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    colors = torch.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ
    colors = brightness * (saturation * torch.eye(3) + (1 - saturation) * grey) @ colors
    pixels = image.flatten(1).float()
    mean = (_TO_YIQ[:1] @ colors @ pixels.mean(dim=1, keepdim=True)) * (1 - contrast)
    changed = torch.addmm(mean.expand(3, 1), contrast * colors, pixels)
    return changed.round_().clamp_(0, 255).to(torch.uint8).view_as(image)


def normalize(images: Tensor, spec: PreprocessSpec) -> Tensor:
    """Turn uint8 images (B, 3, H, W) into the backbone's float input."""
    scaled = images.to(torch.float32).div(255)
    mean, std = (
        torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (spec.mean, spec.std)
    )
    return ((scaled - mean) / std).contiguous(memory_format=torch.channels_last)


class ImageTensors(Dataset[Tensor]):
    """Pictures as uint8 (3, H, W), decoded once and kept as far as there is room.

    Without augmentation an item is exactly `preprocess` of the file.
    """

    def __init__(
        self,
        data: LabeledImages,
        spec: PreprocessSpec,
        *,
        augmentation: Callable[[Tensor], Tensor] | None = None,
        cache_bytes: int = 4 * 2**30,
        workers: int = 0,
    ) -> None:
        """Prepare, reading nothing yet.

        Args:
            data: The pictures.
            spec: The model's input format.
            augmentation: Applied to an image slightly larger than the input.
            cache_bytes: Decoded pictures are kept in memory up to this, for all workers together.
            workers: Processes that `read` lets read; 0: this one.
        """
        self._paths = [image.path for image in data.images]
        self.judged = data.judged
        self._augmentation = augmentation
        size_hw = spec.size_hw
        if augmentation is not None:
            size_hw = (round(size_hw[0] * _ROOM), round(size_hw[1] * _ROOM))
        self._spec = PreprocessSpec(size_hw=size_hw, mean=spec.mean, std=spec.std)
        self._decoded = DecodedPictures(len(self._paths), size_hw, cache_bytes)
        self._workers = workers
        self._reader: BatchReader | None = None

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._paths)

    def read(self, batches: list[list[Any]]) -> Iterator[Tensor]:
        """Yield uint8 (B, 3, H, W) of each batch of keys, in order; a second reading ends the first."""
        if self._reader is None:
            # Of a copy, which does not know the reader: in a cycle of references its workers would be
            # ended by the garbage collector, which closes their queues first, so each would take 5 s.
            self._reader = BatchReader(copy.copy(self), self._workers)
        return self._reader.read(batches)

    @property
    def waited(self) -> float:
        """Seconds that `read` let its caller wait so far."""
        return 0.0 if self._reader is None else self._reader.waited

    def __getitem__(self, key: int | tuple[int, int]) -> Tensor:
        """Read picture `index`, augmented from `seed` where `key` is (index, seed)."""
        index, seed = key if isinstance(key, tuple) else (key, 0)
        image = torch.from_numpy(self._read(index)).permute(2, 0, 1)
        if self._augmentation is None:
            return image
        # One seed per picture and epoch: the same result for any number of workers, or after a
        # restart. Python's and NumPy's generators are not used by these transforms.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._augmentation(image)

    def _read(self, index: int) -> NDArray[np.uint8]:
        if (kept := self._decoded.get(index)) is not None:
            return kept
        try:
            image = preprocess(read_image(self._paths[index]), self._spec)
        except CaptureError as error:
            raise CaptureError(f"{error}; --skip-damaged leaves such pictures out") from error
        self._decoded.keep(index, image)
        return image
