"""What is said of a classifier: words for its preprocessing, processors of Hugging Face, lists of names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge.adopting.labels import labels_of_metadata, read_labels
from cmlr_edge.adopting.processor import read_processor
from cmlr_edge.adopting.recipe import parse_recipe
from cmlr_edge.errors import SpecError
from cmlr_edge.model.spec import PreprocessSpec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", "did you mean 'imagenet'"),
        ("size=big", "should be a number of pixels"),
        ("crop=-3", "should be a number of pixels"),
        ("mean=1/2", "one number or three"),
        ("std=0", "above 0"),
        ("mean=nan", "one number or three"),
        ("crop=100,size=224", "short_side is 100"),
    ],
)
def test_a_wrong_word_says_what_was_meant(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_recipe(f"imagenet,rgb,crop,area,size=224,{text}").spec()


def test_scales_are_read_in_either_unit_and_written_as_they_are_read() -> None:
    bytes_ = parse_recipe("mean=123.675/116.28/103.53,std=58.395/57.12/57.375")
    assert np.allclose(bytes_.scale, parse_recipe("imagenet").scale)
    for word in ("imagenet", "0..1", "-1..1", "0..255", "caffe", "clip", "mean=0.1/0.2/0.3"):
        read = parse_recipe(word)
        assert np.allclose(parse_recipe(read.words()).scale, read.scale, atol=1e-6)
    # Caffe's: pixels of 0 to 255, less a mean. One step of them is what they are divided by.
    for text in (
        "mean=103.939/116.779/123.68",
        "mean=103.939/116.779/123.68,std=1",
        "std=1/1/1,mean=103.939/116.779/123.68",
    ):
        assert parse_recipe(text).scale == parse_recipe("caffe").scale
    assert parse_recipe("mean=0.5,std=1").scale == ((0.5,) * 3, (1.0,) * 3)
    assert parse_recipe("0..255,std=1").scale == parse_recipe("0..255").scale
    # Means are given in the model's order, and kept in that of RGB.
    spec = parse_recipe("mean=0.1/0.2/0.3,bgr,stretch,area,size=8").spec()
    assert spec.mean == (0.3, 0.2, 0.1)


VIT = {
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CROPPED = {
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def test_an_image_processor_of_hugging_face_is_read(tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"

    def read(value: object) -> PreprocessSpec:
        path.write_text(json.dumps(value))
        return read_processor(path).spec()

    def same(words: str) -> PreprocessSpec:
        return parse_recipe(f"rgb,{words}").spec()

    def alike(found: PreprocessSpec, wanted: PreprocessSpec) -> bool:
        close = np.allclose([found.mean, found.std], [wanted.mean, wanted.std])
        return close and replace(found, mean=wanted.mean, std=wanted.std) == wanted

    assert alike(read(VIT), same("-1..1,stretch,pillow-bilinear,size=224"))
    assert alike(read(CROPPED), same("imagenet,crop=256,pillow-bicubic,size=224"))
    assert alike(
        read(VIT | {"do_normalize": False, "size": 64}),
        same("0..1,crop,pillow-bilinear,size=64"),
    )
    for wrong in (
        {"resample": 9},
        {"size": {"width": 3}},
        {"size": {"height": -1, "width": 3}},
        {"image_std": [0, 1, 1]},
        {"image_mean": "x"},
        {"rescale_factor": None},
        {"do_center_crop": True, "crop_size": 100},
    ):
        with pytest.raises(SpecError, match="preprocessor_config"):
            read(VIT | wrong)


def test_names_come_from_lines_json_and_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"id2label": {"1": "dog", "0": "cat"}}')
    assert read_labels(tmp_path / "a.json") == ("cat", "dog")
    (tmp_path / "a.txt").write_text("\ufeffcat\r\n\r\n dog \n")
    assert read_labels(tmp_path / "a.txt") == ("cat", "dog")
    assert labels_of_metadata({"names": "{0: 'cat', 1: 'dog'}"}, "x") == ("cat", "dog")
    assert labels_of_metadata({"names": "__import__('os').getcwd()"}, "x") == ()
    assert labels_of_metadata({"names": "[" * 100_000}, "x") == ()
    assert labels_of_metadata({"names": "{[]: 'cat'}"}, "x") == ()
    assert labels_of_metadata({"names": "{0: ' cat ', 1: 'dog, wet'}"}, "x") == ("cat", "dog, wet")
    for no_numbers in ("{1e999: 'cat'}", "{0.5: 'cat'}", "{0: 'cat', 1j: 'dog'}"):
        with pytest.raises(SpecError, match="holds no label names"):
            labels_of_metadata({"names": no_numbers}, "x")
    with pytest.raises(SpecError, match="'cat' twice"):
        labels_of_metadata({"names": "{0: 'cat', 1: 'cat '}"}, "x")
    (tmp_path / "a.json").write_text('{"0": "cat", "0": "dog"}')
    with pytest.raises(SpecError, match="gives '0' twice"):
        read_labels(tmp_path / "a.json")
    (tmp_path / "a.txt").write_text("crane\nbird\ncrane\n")
    with pytest.raises(SpecError, match="'crane' twice"):
        read_labels(tmp_path / "a.txt")
