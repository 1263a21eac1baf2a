from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmlr_edge.errors import SpecError
from cmlr_edge.model.files import model_path, spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.stability import (
    LabelStability,
    StabilityChange,
    StabilityRules,
    stability_from_thresholds,
)
from tests.conftest import make_spec, mean_color_model

SPEC = make_spec(mean_color_model())
RECORD: dict[str, Any] = json.loads(json.dumps(asdict(SPEC)))


def load(folder: Path, record: object) -> ModelSpec:
    path = folder / "model.json"
    path.write_text(json.dumps(record))
    return ModelSpec.load(path)


def test_spec_round_trips(tmp_path: Path) -> None:
    SPEC.save(tmp_path / "spec.json")
    assert ModelSpec.load(tmp_path / "spec.json") == SPEC
    assert [p.name for p in tmp_path.iterdir()] == ["spec.json"]


def test_stability_travels_with_the_spec_and_is_written_only_where_it_says_something(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.json"
    SPEC.save(path)
    assert "stability" not in json.loads(path.read_text())  # an older version can read it
    rules = StabilityRules(
        StabilityChange(min_gap_s=3.0, enter=0.75), {"red": StabilityChange(enter=0.5)}
    )
    replace(SPEC, stability=rules).save(path)
    spec = ModelSpec.load(path)
    assert spec.stability == rules
    thresholds = dict(zip(spec.labels, spec.thresholds, strict=True))
    argument = StabilityRules(StabilityChange(min_gap_s=1.5))
    settings = stability_from_thresholds(thresholds, spec.stability, argument)
    # The argument counts more than the spec, the spec more than the default.
    assert settings["red"] == LabelStability(enter=0.5, leave=0.4, min_gap_s=1.5)
    assert settings["blue"] == LabelStability(enter=0.75, leave=0.75 * 0.8, min_gap_s=1.5)


def test_missing_spec_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no model spec at .*model.json.*build_engine\.py"):
        ModelSpec.load(tmp_path / "model.json")


@pytest.mark.parametrize("place", [(), ("preprocess",), ("files", "model.onnx", "golden")])
def test_an_unknown_key_is_refused_at_every_level(tmp_path: Path, place: tuple[str, ...]) -> None:
    record = copy.deepcopy(RECORD)
    target = record
    for key in place:
        target = target[key]
    target["surprise"] = 1
    with pytest.raises(SpecError, match="surprise"):
        load(tmp_path, record)


@pytest.mark.parametrize("key", ["labels", "thresholds", "preprocess", "method"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(SpecError, match=key):
        load(tmp_path, {k: v for k, v in RECORD.items() if k != key})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"labels": ["a", "b"]}, "2 labels but 3 thresholds"),
        ({"labels": ["a", "a", "b"]}, r"repeated: \['a'\]"),
        ({"labels": ["a", "", "b"]}, "not empty"),
        ({"labels": [], "thresholds": []}, "no labels"),
        ({"thresholds": [0.5, 0.5, 1.5]}, "1.5"),
        ({"thresholds": [0.5, 0.5, "0.5"]}, r"thresholds\[2\]"),
        ({"thresholds": [0.5, 0.5, True]}, r"thresholds\[2\]"),
        ({"format_version": 2}, "format_version 2"),
        ({"name": None}, "name should be str"),
        ({"preprocess": {**RECORD["preprocess"], "size_hw": [0, 5]}}, "1 to 8192"),
        ({"preprocess": {**RECORD["preprocess"], "std": [1, 0, 1]}}, "above 0"),
        ({"preprocess": {**RECORD["preprocess"], "size_hw": [5]}}, "a list of 2"),
        ({"preprocess": {**RECORD["preprocess"], "resize": "squash"}}, "'stretch'"),
        ({"preprocess": {**RECORD["preprocess"], "short_side": 3}}, "short_side is 3"),
        ({"preprocess": {**RECORD["preprocess"], "fill": 256}}, "fill is 256"),
        ({"stability": {"labels": {"unicorn": {}}}}, "unicorn"),
        ({"stability": {"labels": {"red": {"enter": 0.3, "leave": 0.4}}}}, "stability of red"),
        ({"stability": {"all_labels": {"min_gap_s": -1}}}, "min_gap_s is -1"),
        ({"stability": {"all_labels": {"min_gap": 1}}}, "unknown keys .*did you mean min_gap_s?"),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        load(tmp_path, {**RECORD, **change})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"labels": NaN}', "\xff"])
def test_what_is_not_a_spec_is_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError):
        ModelSpec.load(path)


def test_nan_thresholds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**RECORD, "thresholds": [0.5, float("nan"), 0.5]}))
    with pytest.raises(SpecError, match="finite"):
        ModelSpec.load(path)


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    text = json.dumps(RECORD)
    path.write_text(f'{text[:-1]}, "labels": ["other"]}}')
    with pytest.raises(SpecError, match="'labels' twice"):
        ModelSpec.load(path)


@pytest.mark.parametrize("metrics", [{"m\nap": 0.5}, {"\ud800": 0.5}])
def test_names_of_values_can_be_printed(tmp_path: Path, metrics: dict[str, float]) -> None:
    record = copy.deepcopy(RECORD)
    record["provenance"]["metrics"] = metrics
    with pytest.raises(SpecError, match="printable"):
        load(tmp_path, record)


def test_numbers_beyond_64_bits_are_refused(tmp_path: Path) -> None:
    record = copy.deepcopy(RECORD)
    record["provenance"]["num_train_images"] = 10**400
    with pytest.raises(SpecError, match="64 bits"):
        load(tmp_path, record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def paths(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, ...]] = [at] if at else []
    if isinstance(value, dict):
        return inner + [p for k, v in value.items() for p in paths(v, (*at, k))]
    if isinstance(value, list):
        return inner + [p for i, v in enumerate(value) for p in paths(v, (*at, i))]
    return inner


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(paths(RECORD)), value=JSON)
def test_any_value_anywhere_gives_a_spec_or_a_spec_error(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    record: Any = copy.deepcopy(RECORD)
    target = record
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    try:
        assert isinstance(load(tmp_path, record), ModelSpec)
    except SpecError as error:
        assert str(error)  # noqa: PT017 (either outcome is right)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_any_damaged_byte_gives_a_spec_or_a_spec_error(
    tmp_path: Path, position: int, byte: int, cut: bool
) -> None:
    content = bytearray(json.dumps(RECORD).encode())
    position %= len(content)
    if cut:
        del content[position:]
    else:
        content[position] = byte
    path = tmp_path / "model.json"
    path.write_bytes(content)
    try:
        assert isinstance(ModelSpec.load(path), ModelSpec)
    except SpecError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("thresholds", 0), 10**400, "finite"),  # JSON has no largest integer
        (("labels", 0), "\ud800", "printable"),  # half a character, not writable as UTF-8
        (("labels", 0), "two\nlines", "printable"),
        (("files", "model.onnx", "golden", "seed"), -1, "seed"),
        (("files", "model.onnx", "golden", "scores"), [0.5], "golden sample"),
        (("files", "model.onnx", "golden", "tolerance"), -1.0, "tolerance"),
        (("files", "model.onnx", "golden", "tolerance"), 0.2, "tolerance"),
    ],
)
def test_values_that_would_fail_later_are_refused_when_read(
    tmp_path: Path, place: tuple[Any, ...], value: object, word: str
) -> None:
    path = tmp_path / "model.json"
    make_spec(b"").save(path)
    record = json.loads(path.read_text())
    node = record
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    path.write_text(json.dumps(record))
    with pytest.raises(SpecError, match=word):
        ModelSpec.load(path)


@pytest.mark.parametrize("name", ["../model.onnx", "", ".."])
def test_file_names_do_not_lead_out_of_the_folder(name: str) -> None:
    spec = make_spec(b"")
    with pytest.raises(SpecError, match="without folders"):
        replace(spec, files={name: spec.files["model.onnx"]})


def test_a_folder_means_the_model_in_it(tmp_path: Path) -> None:
    assert model_path(tmp_path) == tmp_path / "model.onnx"
    assert model_path(tmp_path / "other.onnx") == tmp_path / "other.onnx"
    assert spec_path(Path("a/other.onnx")) == Path("a/other.json")


def test_many_labels_are_read_in_no_time(tmp_path: Path) -> None:
    labels = tuple(f"label {number}" for number in range(8000))
    make_spec(mean_color_model(8000), labels).save(tmp_path / "model.json")
    began_s = time.process_time()
    assert ModelSpec.load(tmp_path / "model.json").labels == labels
    assert time.process_time() - began_s < 1.0  # 0.3 on a quiet machine; each against each took 5
