"""What costs time with many pictures, or before the first step: colours, hashes, a silent hub."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from cmlr_edge.errors import DataError
from tests.tiny_training import write_dataset
from train.data.label_cache import cached_labels
from train.data.transforms import ColorJitter, adjust_colors
from train.fitting.confounder_cache import build_or_load
from train.fitting.picture_hashes import hash_pictures
from train.fitting.prepare import Preparation

ROOT = Path(__file__).parents[3]


def picture(side: int = 96) -> Tensor:
    """Smooth colours like a photo's, neither grey nor pure."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(40, 216, (6, 6, 3), np.uint8), (side, side))
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


@pytest.mark.parametrize(
    ("factors", "expected", "within"),
    [
        ((1.2, 1.0, 1.0, 0.0), lambda x: reference.adjust_brightness(x, 1.2), 1),
        ((1.0, 0.8, 1.0, 0.0), lambda x: reference.adjust_contrast(x, 0.8), 2),
        ((1.0, 1.0, 1.2, 0.0), lambda x: reference.adjust_saturation(x, 1.2), 2),
        ((1.0, 1.0, 1.0, 0.0), lambda x: x, 0),
    ],
    ids=["brightness", "contrast", "saturation", "nothing"],
)
def test_colours_change_as_torchvision_changes_them(
    factors: tuple[float, float, float, float], expected: Callable[[Tensor], Tensor], within: int
) -> None:
    found, wanted = adjust_colors(picture(), *factors).int(), expected(picture()).int()
    assert (found - wanted).abs().max() <= within


@pytest.mark.parametrize("hue", [-0.02, 0.02])
def test_the_hue_turns_as_far_and_to_the_same_side_as_torchvisions(hue: float) -> None:
    def hue_of(image: Tensor) -> Tensor:
        rgb = image.permute(1, 2, 0).contiguous().float().div(255).numpy()
        return torch.from_numpy(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 0])  # degrees

    turned = [
        (hue_of(found) - hue_of(picture()) + 180) % 360 - 180
        for found in (adjust_colors(picture(), 1, 1, 1, hue), reference.adjust_hue(picture(), hue))
    ]
    ours, theirs = (float(angles.mean()) for angles in turned)
    assert theirs == pytest.approx(360 * hue, rel=0.05)
    assert ours == pytest.approx(theirs, rel=0.2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As a loader's worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_jitter_draws_from_the_ranges_and_costs_a_part_of_torchvisions() -> None:
    jitter = ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02)
    theirs = v2.ColorJitter(0.2, 0.2, 0.2, 0.02)
    image = picture(448)
    torch.manual_seed(0)
    brightness = [float(jitter(image).float().mean() / image.float().mean()) for _ in range(40)]
    assert 0.78 < min(brightness) < 0.9
    assert 1.1 < max(brightness) < 1.22

    def fastest(change: Callable[[Tensor], Tensor]) -> float:
        times = []
        for _ in range(7):
            start = time.thread_time()
            change(image)
            times.append(time.thread_time() - start)
        return min(times)

    assert fastest(jitter) < 0.3 * fastest(theirs)


def test_pictures_are_hashed_once_and_again_when_they_changed(tmp_path: Path) -> None:
    paths = sorted(write_dataset(tmp_path / "data").glob("*.png"))
    memory = tmp_path / "cache" / "pictures.json"
    first = hash_pictures(paths, memory)
    assert first == hash_pictures(paths, None)
    stat = paths[0].stat()
    paths[0].write_bytes(bytes(stat.st_size))  # damaged, but looks unchanged: it is not read
    os.utime(paths[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert hash_pictures(paths, memory) == first
    paths[1].write_bytes(b"changed")
    changed = hash_pictures(paths, memory)
    assert [i for i in range(len(paths)) if changed[i] != first[i]] == [1]
    memory.write_text("[1, 2")  # damaged: read anew
    assert hash_pictures(paths, memory)[1:] == changed[1:]
    paths[2].unlink()
    with pytest.raises(DataError, match="cannot be read"):
        hash_pictures(paths, memory)


def _confounders_in(folder: Path) -> None:
    def build() -> Preparation:
        raise DataError("not built")

    with suppress(DataError):
        build_or_load(folder, lambda: "key", build)


def _hashes_in(folder: Path) -> None:
    hash_pictures([Path(__file__)], folder / "pictures.json")


def _labels_in(folder: Path) -> None:
    cached_labels(folder / "labels.npz", [], lambda: np.ones((2, 3), bool))


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("another.safetensors", _confounders_in),
        ("pictures.json", _hashes_in),
        ("labels.npz", _labels_in),
    ],
)
def test_a_folder_that_runs_share_is_cleared_of_what_killed_ones_left(
    name: str, run: Callable[[Path], None], tmp_path: Path
) -> None:
    left, live = tmp_path / f".{name}.4711.part", tmp_path / f".{name}.4712.part"
    for part in (left, live):
        part.write_bytes(b"half")
        os.utime(part, (1.0, 1.0))
    with live.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as its writer does, on any machine
        run(tmp_path)
    assert live.is_file()
    assert not left.exists()


def test_a_hub_that_does_not_answer_is_one_quick_error(tmp_path: Path) -> None:
    # It accepts connections and says nothing, as behind a bad proxy.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        code = (
            "import time\n"
            "from cmlr_edge.errors import DependencyError\n"
            "from train.network.backbones import create_backbone\n"
            "start = time.monotonic()\n"
            "try:\n"
            "    create_backbone('mobilenetv3_small_050', 64, pretrained=True)\n"
            "except DependencyError as error:\n"
            "    print(f'{time.monotonic() - start:.1f}', error)\n"
        )
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True,
            text=True, timeout=120, check=True,
        )  # fmt: skip
    seconds, _, message = done.stdout.partition(" ")
    assert float(seconds) < 30
    assert "no pre-trained weights for mobilenetv3_small_050" in message
