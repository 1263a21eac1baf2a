"""The deep learning accelerator: which boards, TensorRTs and batches have one, in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge.engines.dla import caution, refusal
from tests.cmlr_edge.engines.fake_gpu import BUILT, on_fake_gpu, write

AGX, NX, THOR = (
    "NVIDIA Jetson AGX Orin Developer Kit",
    "NVIDIA Jetson Orin NX",
    "NVIDIA Jetson AGX Thor",
)
ONE = (1, 1, 1)


@pytest.mark.parametrize(
    ("tensorrt", "board"),
    [((10, 3, 0), NX), ((10, 7, 0), AGX), ((11, 4, 1), AGX), ((12, 0, 0), AGX), ((11, 4, 1), "")],
)
def test_an_orin_with_a_dla_is_taken(tensorrt: tuple[int, ...], board: str) -> None:
    assert refusal("8.7", tensorrt, board, ONE) is None


@pytest.mark.parametrize(
    ("capability", "tensorrt", "board", "batch", "message"),
    [
        ("11.0", (10, 13, 0), THOR, ONE, "11.0 comes without a DLA"),
        ("11.0", (11, 4, 1), THOR, ONE, "11.0 comes without a DLA"),
        ("9.0", (11, 4, 1), "", ONE, "9.0 comes without a DLA"),
        ("8.7", (10, 8, 0), AGX, ONE, "TensorRT 10.8.0 has no DLA"),
        ("8.7", (10, 16, 1), NX, ONE, "TensorRT 10.16.1 has no DLA"),
        ("8.7", (11, 4, 0), AGX, ONE, "TensorRT 11.4.0 has no DLA"),
        ("8.7", (11, 4, 1), NX, ONE, "has a DLA on AGX Orin alone, this is NVIDIA Jetson Orin NX"),
        ("8.7", (10, 3, 0), NX, (1, 1, 8), "no sizes that change at run time"),
    ],
)
def test_where_there_is_none_one_sentence_says_why_and_what_to_do(
    capability: str,
    tensorrt: tuple[int, ...],
    board: str,
    batch: tuple[int, int, int],
    message: str,
) -> None:
    said = refusal(capability, tensorrt, board, batch)
    assert said is not None
    assert message in said
    assert "build without --useDLACore" in said


def test_strongly_typed_networks_are_documented_for_the_dla_of_tensorrt_11_alone() -> None:
    assert "TensorRT 11 alone" in caution((10, 3, 0))
    assert caution((11, 4, 1)) == ""


@pytest.mark.parametrize(("batch", "state"), [((1, 1, 8), "failed"), (ONE, "warning")])
def test_preflight_looks_at_the_dla_of_an_engine_that_has_one(
    driver: Path, tmp_path: Path, batch: tuple[int, int, int], state: str
) -> None:
    path = write(tmp_path, replace(BUILT, batch=batch, dla_core=0))
    found = {f["what"]: f["state"] for f in on_fake_gpu(driver, "find", path)["engine"]}
    assert found["dla"] == state
