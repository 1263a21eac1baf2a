"""What a prediction says of why, on an engine of a known formula and in every runtime."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cmlr_edge import Explain, Recognizer
from cmlr_edge.backends import load_backend
from cmlr_edge.backends.onnx_outputs import with_outputs
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.spec import ModelSpec
from tests.conftest import SIZE_HW, make_spec, mean_color_model, solid, write_engine
from tests.explained_engine import (
    LINKS,
    explained_model,
    meaning,
    parts_of,
    scores_of,
    write_explained_engine,
)

PROVIDERS = ("cpu", "openvino")


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    return write_explained_engine(tmp_path / "explained")


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def frames_of(number: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (number, *SIZE_HW, 3), np.uint8)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_amounts_are_those_of_the_formula_and_add_up(explained: Path, provider: str) -> None:
    frames = frames_of(3)
    parts, expected = parts_of(frames), scores_of(frames)
    with Recognizer.from_engine(explained, provider=provider) as recognizer:
        assert recognizer.explains
        predictions = recognizer.recognize_batch(frames, color="rgb", explain=True)
        plain = recognizer.recognize_batch(frames, color="rgb")
    for i, prediction in enumerate(predictions):
        assert prediction.why is not None
        assert [*prediction.why] == ["red", "green", "blue"]
        np.testing.assert_allclose(prediction.scores, expected[i], atol=1e-5)
        np.testing.assert_allclose(prediction.scores, plain[i].scores, atol=1e-6)
        assert plain[i].why is None
        for j, (label, why) in enumerate(prediction.why.items()):
            assert why.own == pytest.approx(parts["own_evidence"][i, j], abs=1e-5)
            assert why.surroundings == pytest.approx(parts["surroundings"][i, j], abs=1e-5)
            assert why.logit == pytest.approx(logit(float(prediction.scores[j])), abs=1e-5)
            assert label not in why.others
        red = prediction.why["red"]
        assert [*red.others] == ["green", "blue"]  # biggest first
        assert red.others["blue"] == pytest.approx(parts["links"][i, 0, 2], abs=1e-5)
        assert prediction.why["blue"].others == {}  # nothing is no other label


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_map_lies_as_the_picture_does(explained: Path, provider: str) -> None:
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    image[12:, 8:16, 0] = 255  # red, in the second row and column of 2 x 4 cells
    with Recognizer.from_engine(explained, provider=provider) as recognizer:
        why = recognizer(image, color="rgb", explain=True).why
    assert why is not None
    found = why["red"].map
    assert found is not None
    assert found.shape == (2, 4)
    assert divmod(int(found.argmax()), 4) == (1, 1)
    assert found.sum() == pytest.approx(1)
    hidden = np.zeros((2, 4), bool)
    hidden[1, 1] = True
    masked = why.placed((0.5, 0, 1, 1), hidden)["red"]
    assert masked.map is not None
    assert masked.map[1, 1] == 0
    assert masked.map_box == (0.5, 0, 1, 1)


def test_a_label_owes_its_surroundings_what_it_would_not_reach_without(explained: Path) -> None:
    # Green's own evidence is 8 g - 4, the surroundings' 3 times the brightness less 1.
    owing, own = solid(255, 115, 255), solid(0, 255, 255)
    with Recognizer.from_engine(explained) as recognizer:

        def flag(image: Any, margin: float = 0.0) -> bool:
            explain = Explain(margin=margin)
            why = recognizer(image, color="rgb", explain=explain).why
            assert why is not None
            return why["green"].because_of_surroundings

        assert flag(owing)
        assert not flag(own)
        assert not flag(owing, margin=-3)
        assert flag(own, margin=8)
        # What is not said owes nothing, and what dark surroundings take away is no gift.
        assert not flag(solid(0, 0, 0), margin=100)
        assert not flag(solid(0, 255, 0), margin=100)
        prediction = recognizer(owing, color="rgb", explain=True)
    assert prediction.why is not None
    assert not prediction.why.judged_by([0.1] * 3)["green"].because_of_surroundings


@pytest.mark.parametrize("margin", [math.nan, math.inf, 1000])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(SpecError, match="margin"):
        Explain(margin=margin)


def test_averaged_surroundings_are_never_to_blame(tmp_path: Path) -> None:
    path = write_explained_engine(tmp_path)
    spec = ModelSpec.load(path.with_suffix(".json"))
    averaged = replace(meaning(), surroundings="averaged")
    replace(spec, explanation=averaged).save(path.with_suffix(".json"))
    with Recognizer.from_engine(path) as recognizer:
        why = recognizer(solid(255, 115, 255), color="rgb", explain=True).why
    assert why is not None
    assert not why["green"].because_of_surroundings


def test_a_person_reads_it_and_a_program_too(explained: Path) -> None:
    with Recognizer.from_engine(explained) as recognizer:
        prediction = recognizer(solid(150, 255, 255), explain=True)
    assert prediction.why is not None
    text = str(prediction.why["red"])
    assert text == (
        "red 0.96: own evidence +4.7, surroundings +1.6, with green +2.0, with blue -1.0, bias -4.0"
    )
    record = json.loads(prediction.to_json())["why"]
    assert [*record] == [item.label for item in prediction.labels]
    red = record["red"]
    total = red["own"] + red["surroundings"] + red["bias"] + sum(red["others"].values())
    assert total + red["others_rest"] == pytest.approx(red["logit"], abs=1e-3)
    assert len(red["map"]) == 2
    assert len(red["map"][0]) == 4
    assert red["map_box"] == [0, 0, 1, 1]
    assert "why" not in json.loads(replace(prediction, why=None).to_json())


def test_many_others_are_named_up_to_eight_and_their_rest_is_told() -> None:
    labels = tuple(f"l{i}" for i in range(12))
    outputs = {
        "own_evidence": np.zeros(12, np.float32),
        "links": np.tile(np.linspace(0.1, 1.2, 12, dtype=np.float32), (12, 1)),
    }
    from cmlr_edge.model.explanation import ExplanationSpec
    from cmlr_edge.why import Reasons

    spec = ExplanationSpec({}, (0.0,) * 12, "scores")
    why = Reasons(labels, np.full(12, 0.5, np.float32), outputs, spec, [0.5] * 12)["l0"]
    record = why.to_dict()
    assert [*record["others"]][:2] == ["l11", "l10"]
    assert len(record["others"]) == 8
    assert record["others_rest"] == pytest.approx(0.1 + 0.2 + 0.3 + 0.4, abs=1e-4)
    assert "map" not in record
    assert "with l9 +1.0, other labels +4.5" in str(why)


def test_a_label_that_is_not_known_is_named(explained: Path) -> None:
    with Recognizer.from_engine(explained) as recognizer:
        why = recognizer(solid(1, 2, 3), explain=True).why
    assert why is not None
    assert "black" not in why
    with pytest.raises(KeyError, match="'black' is not one of the model's 3 labels"):
        why["black"]


def test_an_engine_that_cannot_say_why_says_so_in_one_line(engine: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        assert not recognizer.explains
        assert recognizer(solid(1, 2, 3)).why is None
        with pytest.raises(EngineError, match=r"cannot say why.*--explain") as caught:
            recognizer(solid(1, 2, 3), explain=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_spec_that_promises_more_than_its_engine_gives_is_refused(
    tmp_path: Path, provider: str
) -> None:
    content = mean_color_model()
    path = write_engine(tmp_path, content, replace(make_spec(content), explanation=meaning()))
    with Recognizer.from_engine(path, provider=provider) as recognizer:
        recognizer(solid(1, 2, 3))
        with pytest.raises(EngineError, match="cannot say why"):
            recognizer(solid(1, 2, 3), explain=True)
    path = write_explained_engine(tmp_path / "other")
    spec = ModelSpec.load(path.with_suffix(".json"))
    wrong = replace(meaning(), map_hw=(3, 3))
    replace(spec, explanation=wrong).save(path.with_suffix(".json"))
    with (
        Recognizer.from_engine(path, provider=provider) as recognizer,
        pytest.raises(EngineError, match=r"should give attention \(3, 3, 3\)"),
    ):
        recognizer(solid(1, 2, 3), explain=True)


@pytest.mark.parametrize(
    "wrong", [{"map_hw": (0, 3)}, {"map_hw": (10**6, 10**6)}, {"num_confounders": -1}]
)
def test_a_spec_with_sizes_that_no_model_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="expected"):
        replace(meaning(), **wrong)


def test_a_spec_whose_bias_is_of_other_labels_is_refused(explained: Path) -> None:
    path = explained.with_suffix(".json")
    text = json.loads(path.read_text())
    text["explanation"]["bias"].append(1.0)
    path.write_text(json.dumps(text))
    with pytest.raises(SpecError, match=r"3 labels but explanation\.bias has 4"):
        Recognizer.from_engine(explained)


def test_a_spec_without_an_explanation_is_written_as_older_versions_read_it(engine: Path) -> None:
    path = engine.with_suffix(".json")
    ModelSpec.load(path).save(path)
    assert "explanation" not in json.loads(path.read_text())


def test_what_nobody_asks_for_is_not_in_the_graph_that_runs() -> None:
    whole = explained_model()
    plain = onnx.load_from_string(with_outputs(whole, {"scores"}))
    onnx.checker.check_model(plain, full_check=True)
    assert [output.name for output in plain.graph.output] == ["scores"]
    made = {name for node in plain.graph.node for name in node.output}
    assert not made & {"planes", "pooled", "seen", "whole", "attention"}
    read = {name for node in plain.graph.node for name in node.input}
    assert {tensor.name for tensor in plain.graph.initializer} <= read
    assert with_outputs(whole, {o.name for o in onnx.load_from_string(whole).graph.output}) == whole
    assert with_outputs(plain.SerializeToString(), {"scores"}) == plain.SerializeToString()


def test_what_is_no_onnx_file_is_refused_and_a_file_of_others_is_left_to_its_runtime() -> None:
    with pytest.raises(EngineError, match="not an ONNX file"):
        with_outputs(explained_model()[:-3], {"scores"})
    other = mean_color_model().replace(b"scores", b"logits")
    assert with_outputs(other, {"scores"}) == other


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_closed_engine_explains_nothing(explained: Path, provider: str) -> None:
    recognizer = Recognizer.from_engine(explained, provider=provider)
    recognizer(solid(1, 2, 3), explain=True)
    recognizer.close()
    with pytest.raises(EngineError, match="was closed"):
        recognizer(solid(1, 2, 3), explain=True)


def test_links_of_the_formula_have_no_diagonal() -> None:
    assert not np.diag(LINKS).any()


def test_a_backend_gives_every_output_by_name(explained: Path) -> None:
    for provider in PROVIDERS:
        backend: Any = load_backend(explained, explained.read_bytes(), provider=provider)
        found = backend.explain(frames_of(2))
        assert {name: array.shape for name, array in found.items()} == {
            "scores": (2, 3),
            **{name: (2, *shape) for name, shape in meaning().shapes.items()},
        }
        backend.close()


def test_a_label_that_was_taught_has_its_own_evidence_alone() -> None:
    from cmlr_edge.why import Reasons

    outputs = {name: np.ones(shape, np.float32) for name, shape in meaning().shapes.items()}
    scores = np.array([0.5, 0.5, 0.5, 0.9], np.float32)
    why = Reasons(("red", "green", "blue", "forklift"), scores, outputs, meaning(), [0.5] * 4)
    taught = why["forklift"]
    assert taught.own == taught.logit == pytest.approx(logit(0.9), abs=1e-5)
    assert (taught.others, taught.map, taught.because_of_surroundings) == ({}, None, False)
    assert [*why["red"].others] == ["red", "green", "blue"]  # as the engine says


def test_an_engine_that_explains_can_be_taught_and_goes_on_explaining(explained: Path) -> None:
    from cmlr_edge.backends.onnx_rows import Row, Tokens, with_rows, without_rows

    content = explained.read_bytes()
    some, none = np.full(3, 0.01, np.float32), np.zeros(3, np.float32)
    row = Row(evidence=some, attention=none, mean=some, bias=-1.0)
    place = Tokens("pixel_rows", SIZE_HW[0] * SIZE_HW[1], 3, narrow=False, turned=False)
    taught = with_rows(content, [row], 3, "model.onnx", place)
    assert without_rows(taught, 3, "model.onnx") == content
    backend: Any = load_backend(explained, taught, provider="cpu")
    frames = frames_of(2)
    found, plain = backend.explain(frames), backend.infer(frames)
    backend.close()
    assert found["scores"].shape == plain.shape == (2, 4)
    np.testing.assert_allclose(found["scores"], plain, atol=1e-6)
    np.testing.assert_allclose(plain[:, :3], scores_of(frames), atol=1e-5)
    assert found["own_evidence"].shape == (2, 3)
