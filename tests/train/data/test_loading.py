"""Pictures read by workers: the same as without, decoded once for all, and errors of one line."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from cmlr_edge.errors import CaptureError, TrainingError
from cmlr_edge.model.spec import PreprocessSpec
from tests.tiny_training import tiny_config, write_dataset
from train.data import read_dataset
from train.data.loading import BatchReader, DecodedPictures
from train.data.transforms import ImageTensors, build_augmentation
from train.fitting.loop import fit

SPEC = PreprocessSpec((64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Pids(Dataset[Tensor]):
    """Tells which process reads."""

    def __getitem__(self, key: int) -> Tensor:
        if key < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([key, os.getpid()])


def test_workers_stay_from_one_reading_to_the_next_and_keep_the_order() -> None:
    reader = BatchReader(Pids(), workers=2)
    seen = []
    for batches in ([[1, 2], [3]], [[4], [5, 6], [7]], [], [[8]]):
        found = list(reader.read(batches))
        assert [batch[:, 0].tolist() for batch in found] == batches
        seen.append({int(pid) for batch in found for pid in batch[:, 1]})
    assert os.getpid() not in seen[0]
    assert seen[1] == seen[0]
    assert seen[3] < seen[0]
    assert reader.waited > 0


def test_a_reading_that_was_left_does_not_disturb_the_next() -> None:
    for workers in (0, 2):
        reader = BatchReader(Pids(), workers=workers)
        first = reader.read([[1], [2], [3], [4], [5]])
        next(first)
        assert [int(b[0, 0]) for b in reader.read([[6], [7]])] == [6, 7]


class Collecting(Dataset[Tensor]):
    """Clears garbage, as Python does now and then, and tells how many objects could not end."""

    def __getitem__(self, key: int) -> Tensor:
        failed: list[object] = []
        sys.unraisablehook = failed.append
        gc.collect()
        return torch.tensor([key, len(failed)])


def test_a_worker_leaves_alone_what_is_garbage_of_the_parent() -> None:
    gc.disable()
    try:
        older = BatchReader(Pids(), workers=1)
        list(older.read([[1]]))
        cycle: list[object] = [older]
        cycle.append(cycle)
        del older, cycle
        (read,) = BatchReader(Collecting(), workers=1).read([[1]])
    finally:
        gc.enable()
    assert read.tolist() == [[1, 0]]


class Marked:
    """Garbage that notes which process ends it."""

    def __init__(self, file: Path) -> None:
        self.itself, self._file = self, file

    def __del__(self) -> None:
        with self._file.open("a") as file:
            file.write(f"{os.getpid()}\n")


def test_garbage_is_the_parents_before_a_worker_runs_code_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may look for it at once: in PyTorch's own first lines, before anything of ours runs there."""
    ended = tmp_path / "ended"
    parent = os.getpid()

    def fork() -> int:
        pid = real_fork()
        if os.getpid() != parent:
            gc.set_threshold(1)
            _ = [[] for _ in range(1000)]  # Python looks now, unless it is told not to
            gc.set_threshold(*thresholds)
        return pid

    real_fork, thresholds = os.fork, gc.get_threshold()
    monkeypatch.setattr(os, "fork", fork)
    gc.set_threshold(10**9)  # the parent does not look
    try:
        Marked(ended)
        (read,) = BatchReader(Pids(), workers=1).read([[1]])
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert int(read[0, 1]) != parent
    assert {int(pid) for pid in ended.read_text().split()} == {parent}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_what_a_program_around_has_frozen_stays_so_and_nothing_more(
    frozen: bool, enabled: bool
) -> None:
    enable, was_frozen = (gc.enable if enabled else gc.disable), gc.get_freeze_count()
    (gc.freeze if frozen else gc.unfreeze)()
    try:
        enable()
        before, reader = gc.get_freeze_count(), BatchReader(Pids(), workers=1)
        for _ in range(2):
            list(reader.read([[1]]))
            # What was frozen may end by itself: 1 in 10 would be a thaw.
            assert 0.9 * before <= gc.get_freeze_count() <= before
            assert gc.isenabled() is enabled
    finally:
        gc.enable()
        (gc.freeze if was_frozen else gc.unfreeze)()


class Looking(Dataset[Tensor]):
    """Tells whether garbage is looked for in a worker."""

    def __getitem__(self, key: int) -> Tensor:
        return torch.tensor([key, gc.isenabled()])


def test_a_worker_looks_for_its_own_garbage() -> None:
    (read,) = BatchReader(Looking(), workers=1).read([[3]])
    assert read.tolist() == [[3, 1]]


def test_a_worker_that_is_killed_is_one_error() -> None:
    with pytest.raises(TrainingError, match="fewer workers") as raised:
        list(BatchReader(Pids(), workers=1).read([[1], [-1]]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_are_decoded_once_for_all_workers(tmp_path: Path, workers: int) -> None:
    data = read_dataset(write_dataset(tmp_path))
    augmentation = build_augmentation("standard", (64, 64))
    images = ImageTensors(data, SPEC, augmentation=augmentation, workers=workers)
    keys = [(i, 7 * i) for i in range(len(images))]
    first = list(images.read([keys[i : i + 4] for i in range(0, len(keys), 4)]))
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    # In other batches, so that other workers are given them.
    again = torch.cat(list(images.read([[key] for key in reversed(keys)])))
    assert torch.equal(torch.cat(first), again.flip(0))


def test_workers_end_with_what_they_read_for(tmp_path: Path) -> None:
    images = ImageTensors(read_dataset(write_dataset(tmp_path)), SPEC, workers=2)
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        list(images.read([[0], [1]]))
        assert len(set(multiprocessing.active_children()) - before) == 2
        del images
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_no_more_is_kept_than_there_is_room_for() -> None:
    size = 8 * 8 * 3
    decoded = DecodedPictures(10, (8, 8), max_bytes=2 * size + 5)
    for index in range(10):
        decoded.keep(index, np.full((8, 8, 3), index + 1, np.uint8))
    kept = [decoded.get(index) for index in range(10)]
    assert [None if image is None else int(image.max()) for image in kept] == [1, 2] + 8 * [None]
    assert DecodedPictures(10, (8, 8), max_bytes=0).get(0) is None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_one_line_whoever_reads_it(tmp_path: Path, workers: int) -> None:
    data = read_dataset(write_dataset(tmp_path))
    (tmp_path / "3.png").write_bytes(b"no picture")
    images = ImageTensors(data, SPEC, workers=workers)
    with pytest.raises(CaptureError, match=r"3\.png.*--skip-damaged") as raised:
        list(images.read([[0, 1], [2, 3]]))
    assert "\n" not in str(raised.value)


def test_a_run_is_the_same_bit_for_bit_with_workers_and_says_how_long_it_waited(
    tmp_path: Path,
) -> None:
    data, found = read_dataset(write_dataset(tmp_path / "data")), []
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        fit(data, run, tiny_config("epochs=2", "model.pooled_skip=true", f"workers={workers}"))
        found.append(load_file(run / "model.safetensors"))
        for line in (run / "log.jsonl").read_text().splitlines():
            record = json.loads(line)
            assert record["images_per_s"] > 0
            assert 0 < record["waiting"] < 1
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())
