"""Exports of annotation tools that are cut, damaged or somebody else's are read, or one short line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import pytest

from cmlr_edge.errors import DataError
from tests.train.data.tool_trees import (
    TREES,
    changed_everywhere,
    class_folders_without_splits,
    parquet,
    write,
    yolo,
)
from train.data import read_dataset


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("names: &n [*n]\ntrain: images/train\n", "aliases"),
        (
            "a: &a [x, x]\n"
            + "".join(
                f"{n}: &{n} [*{o}, *{o}]\n" for o, n in pairwise("abcdefghijklmnopqrstuvwxyz")
            )
            + "names: [x]\nnc: *z\ntrain: images/train\n",
            "aliases",
        ),
        ("names: [cat, [dog]]\ntrain: images/train\n", r"\['dog'\]"),
        ("names: [no, yes]\ntrain: images/train\n", "is False"),  # they were False and True
        ("names: [x]\nnc: 0x" + "f" * 9000 + "\ntrain: images/train\n", "of many digits"),
        ('names: [x]\ntrain: "a\\0b"\n', "there is no"),
        ("names: [x]\ntrain: " + "a" * 5000 + "\n", "there is no"),
        ("names: [cat, dog]\ntrain: list.txt\n", "leaves"),
    ],
)
def test_yaml_of_somebody_else_is_read_or_one_short_line(
    tmp_path: Path, record: str, message: str
) -> None:
    yolo(tmp_path)
    write(tmp_path / "data.yaml", record)
    write(tmp_path / "list.txt", "images/train/1.jpg\n" + "x" * 400 + "\n/\n")
    with pytest.raises(DataError, match=message) as error:
        read_dataset(tmp_path)
    assert len(str(error.value)) < 700
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["fiftyone", "fiftyone classification", "label studio", "hf jsonl"]
)
def test_whatever_stands_anywhere_in_it_is_read_or_one_short_line(
    tmp_path: Path, name: str
) -> None:
    TREES[name][0](tmp_path)
    refused = 0
    for path in sorted([*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")]):
        whole = path.read_text()
        lines = whole.splitlines() if path.suffix == ".jsonl" else [whole]
        for changed in changed_everywhere(json.loads(lines[0])):
            path.write_text("\n".join([json.dumps(changed), *lines[1:]]))
            try:
                read_dataset(tmp_path)
            except DataError as error:
                refused += 1
                assert len(str(error)) < 700  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
        path.write_text(whole)
    assert refused > 20


def test_what_a_parquet_file_says_of_its_labels_may_be_anything(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow: pip install pyarrow")
    parquet(tmp_path)
    for path in (tmp_path / "data").glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.replace_schema_metadata({b"huggingface": b"[" * 100_000}), path)
    assert read_dataset(tmp_path).classes == ("0", "1")  # no names are to be had


def test_a_sheet_is_drawn_of_files_whose_names_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / "data"
    class_folders_without_splits(root)
    first = next(root.rglob("*.jpg"))
    first.rename(first.with_name(os.fsdecode(b"\xff.jpg")))
    command = [sys.executable, "-m", "train", "check", str(root), "--sheet", f"{tmp_path}/s.png"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "s.png")) is not None


def test_a_parquet_file_that_changed_is_unpacked_again_and_a_damaged_one_named(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install pyarrow")
    root = tmp_path / "data"
    root.mkdir()
    parquet(root)
    first = [image.path.read_bytes() for image in read_dataset(root).images]
    (root / "data/train-00000-of-00001.parquet").rename(root / "data/test-00000-of-00001.parquet")
    data = read_dataset(root)
    assert data.splits == ["test", "val"]
    assert sorted(image.path.read_bytes() for image in data.images) == sorted(first)
    (root / "data/test-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="as Parquet"):
        read_dataset(root)


@pytest.mark.parametrize("name", [name for name in TREES if name != "parquet"])
def test_a_file_of_a_tool_that_is_cut_anywhere_is_read_or_one_short_line(
    tmp_path: Path, name: str
) -> None:
    TREES[name][0](tmp_path)
    ends = {".json", ".jsonl", ".csv", ".xml", ".yaml", ".txt"}
    for path in [p for p in tmp_path.rglob("*") if p.suffix in ends]:
        whole = path.read_bytes()
        for share in (0, 0.3, 0.6, 0.95):
            path.write_bytes(whole[: int(share * len(whole))])
            try:
                read_dataset(tmp_path)
            except DataError as error:
                assert len(str(error)) < 700  # noqa: PT017
                assert "\n" not in str(error)  # noqa: PT017
        path.write_bytes(whole)
