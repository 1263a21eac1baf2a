"""Lessons from pictures that hardly differ, and then from others; and from very many."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cmlr_edge import Recognizer
from cmlr_edge.errors import DataError
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.teaching import fitting
from cmlr_edge.teaching.examples import Examples
from cmlr_edge.teaching.fitting import Basis
from cmlr_edge.teaching.lesson import Teacher
from cmlr_edge.teaching.pictures import Pictures
from tests.cmlr_edge.teaching.patches import picture, write_patch_engine, write_pictures
from tests.conftest import SIZE_HW


def test_what_stood_still_in_the_first_lesson_may_move_in_the_second(tmp_path: Path) -> None:
    base = write_patch_engine(tmp_path / "base")
    preprocess = ModelSpec.load(spec_path(base)).preprocess

    def red(name: str, value: int) -> Pictures:
        """Green and blue are 0 in every picture."""
        (tmp_path / name).mkdir()
        for i in range(12):
            image = np.zeros((*SIZE_HW, 3), np.uint8)
            image[..., 2] = value + i
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), image)
        return Pictures.read([tmp_path / name], preprocess)

    first = Teacher.of(base, providers=["cpu"]).teach("bright", red("with", 200), red("no", 20))
    engine = first.write(tmp_path / "first")
    yellow, dull = (
        Pictures.read([write_pictures(tmp_path / f"{there}", 20, yellow=there)], preprocess)
        for there in (True, False)
    )
    second = Teacher.of(engine, providers=["cpu"]).teach("yellow", yellow, dull)
    with Recognizer.from_engine(second.write(tmp_path / "second")) as recognizer:
        rng = np.random.default_rng(5)
        hits = [
            ("yellow" in [x.label for x in recognizer(picture(rng, yellow=there)).labels]) == there
            for there in (True, False) * 10
        ]
    assert sum(hits) >= 18


def test_a_picture_out_of_all_range_is_one_line_and_not_an_infinity() -> None:
    basis = Basis(np.zeros(2, np.float32), np.eye(2, dtype=np.float32))
    empty = Examples.empty(basis, 1, "00")
    with pytest.raises(DataError, match="too far from those of the lessons before: forget"):
        empty.add("x", ["00"], [np.array([[1e5, 0]], np.float32)], present=True)


def test_tokens_of_very_many_pictures_are_drawn_from_all_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "_SAMPLE", 1000)
    tokens = np.zeros((4000, 2), np.float32)
    tokens[::2], tokens[1::2] = (0, 1), (1, 0)  # left and right column of each picture
    assert Basis.of(tokens).mean == pytest.approx([0.5, 0.5], abs=0.1)
