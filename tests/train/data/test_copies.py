"""Pictures that are there several times: on one side of every draw, and named by `check`."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cmlr_edge.errors import DataError
from train.config import ConfounderConfig
from train.confounders import clustering
from train.data import LabeledImages, read_dataset
from train.data.copies import first_of_equal
from train.data.report import report_on


def photos(root: Path, number: int, copies: int = 0) -> LabeledImages:
    """Different pictures, the first of them also under other names."""
    lines = ["file,labels"]
    for i in range(number):
        picture = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        content = cv2.imencode(".png", picture)[1].tobytes()
        for name in (f"{i}.png", *([f"copy_{i}.png"] if i < copies else [])):
            (root / name).write_bytes(content)
            lines.append(f"{name},cat")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return read_dataset(root)


def names_of(data: LabeledImages, split: str) -> set[str]:
    return {image.path.name for image in data.split(split).images}


def test_copies_of_a_picture_are_held_out_together(tmp_path: Path) -> None:
    data = photos(tmp_path, 20, copies=20)
    for seed in range(5):
        divided = data.with_validation(0.2, seed)
        held_out, kept = names_of(divided, "val"), names_of(divided, "train")
        assert len(held_out) == 8
        assert not {name.removeprefix("copy_") for name in held_out} & kept
        assert {f"copy_{n}" for n in held_out if not n.startswith("copy_")} <= held_out


def test_what_is_held_out_of_data_without_copies_is_what_it_was(tmp_path: Path) -> None:
    data = photos(tmp_path, 20)
    for seed in range(5):
        drawn = random.Random(seed).sample(range(20), 4)
        expected = {data.images[i].path.name for i in drawn}
        assert names_of(data.with_validation(0.2, seed), "val") == expected


def test_one_picture_under_many_names_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 train images, 1 of them different: at least 2"):
        photos(tmp_path, 1, copies=1).with_validation(0.2, 0)


def test_equal_files_are_told_from_those_that_are_as_long_or_end_alike(tmp_path: Path) -> None:
    end = bytes(5000)
    contents = [b"a" + end, b"b" + end, b"a" + end, b"a" + end[1:] + b"c", b"a", b"", b"a"]
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    pipe, gone = tmp_path / "pipe", tmp_path / "gone"
    os.mkfifo(pipe)
    found = first_of_equal([*paths, pipe, pipe, gone, gone])
    assert found.tolist() == [0, 1, 0, 3, 4, 5, 4, 7, 8, 9, 10]
    assert first_of_equal([]).tolist() == []


def test_a_report_counts_the_pictures_that_are_there_again(tmp_path: Path) -> None:
    report = report_on(photos(tmp_path, 10, copies=8), "own, table", pictures=True)
    (said,) = (line for line in report.problems if "copy_" in line)
    assert said == (
        "0.png = copy_0.png, 1.png = copy_1.png, 2.png = copy_2.png, 3.png = copy_3.png, "
        "4.png = copy_4.png and 3 more: the same within a split; keep one of each, 8 pictures count again"
    )
    (tmp_path / "other").mkdir()
    alone = report_on(photos(tmp_path / "other", 10), "own, table", pictures=True)
    assert not [line for line in alone.problems if "the same" in line]


def test_what_context_explains_of_a_picture_is_fitted_without_its_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contexts = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    contexts, targets = contexts.repeat(2, 1), torch.ones(40, 1)
    seen: list[Any] = []

    def fit_logistic(features: Any, *_: object) -> tuple[Any, Any]:
        seen.append(features)
        return np.zeros((3, 1)), np.zeros(1)

    monkeypatch.setattr(clustering, "_fit_logistic", fit_logistic)
    config = ConfounderConfig(num_confounders=3, num_contexts=40, ridge=1.0)
    first = np.tile(np.arange(20), 2)
    clustering.fit_context_term(contexts, targets, config, 0, first=first)
    for inside in seen[1:]:  # the first one is all of them
        assert len(inside) == 2 * len(np.unique(inside, axis=0)) < 40
