"""Classifiers of other tools become engines that give their scores."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.adoption.measure import measure
from benchmarks.adoption.small import LABELS, Case, draw, keras, small, small_cases, ultralytics
from cmlr_edge import Recognizer
from cmlr_edge.adopting.adopt import Adoption, Wishes
from cmlr_edge.adopting.recipe import parse_recipe
from cmlr_edge.errors import CmlrError, EngineError, SpecError
from cmlr_edge.model.spec import ModelSpec, PreprocessSpec, Resize
from cmlr_edge.preprocess import preprocess
from cmlr_edge.service.store import EngineStore
from cmlr_edge.teaching.lesson import Teacher
from tests.cmlr_edge.cli.command import run

PICTURES = draw()[:3]
WISHES = Wishes(labels=LABELS)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.onnx"
    keras().write(path)
    return path


@pytest.mark.parametrize("case", small_cases(), ids=lambda case: case.name)
def test_an_adopted_model_gives_the_scores_of_its_own_runtime(case: Case) -> None:
    row = measure(case, PICTURES)
    assert row["largest_difference"] <= row["allowed"]
    low, high = row["scores_from_to"]
    assert high - low > 0.3  # scores that are all alike would prove nothing


def test_one_file_is_enough_under_any_name_and_a_changed_byte_is_noticed(
    foreign: Path, tmp_path: Path
) -> None:
    path = Adoption(foreign, WISHES).finish().write(tmp_path / "engine")
    alone = tmp_path / "sent by mail.onnx"
    alone.write_bytes(path.read_bytes())
    with Recognizer.from_engine(path) as beside, Recognizer.from_engine(alone) as inside:
        assert inside.labels == LABELS
        assert np.array_equal(inside(PICTURES[0]).scores, beside(PICTURES[0]).scores)
    store = EngineStore(tmp_path / "store")
    assert store.checked(store.add(alone)).spec.labels == LABELS
    content = alone.read_bytes()
    for place in np.linspace(0, len(content) - 1, 60).astype(int).tolist():
        changed = bytearray(content)
        changed[place] ^= 1
        alone.write_bytes(changed)
        with pytest.raises(CmlrError):
            Recognizer.from_engine(alone)


def test_an_adopted_engine_that_is_to_be_taught_is_told_what_can_be(
    foreign: Path, tmp_path: Path
) -> None:
    path = Adoption(foreign, WISHES).finish().write(tmp_path / "engine")
    with pytest.raises(EngineError, match="trained elsewhere and adopted"):
        Teacher.of(path)


def _scores(case: Case, path: Path) -> dict[str, list[float]]:
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return {
        f"{i}.png": session.run([case.output], {name: case.prepare(picture)})[0].ravel().tolist()
        for i, picture in enumerate(PICTURES)
    }


def _save_pictures(folder: Path) -> Path:
    folder.mkdir()
    for i, picture in enumerate(PICTURES):
        picture.save(folder / f"{i}.png")
    return folder


def test_what_nobody_said_is_found_with_scores_and_is_said_without(
    foreign: Path, tmp_path: Path
) -> None:
    pictures, scores = _save_pictures(tmp_path / "pictures"), tmp_path / "scores.json"
    scores.write_text(json.dumps(_scores(keras(), foreign)))
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    common = ("adopt", foreign, "--labels", tmp_path / "labels.txt", "--out", tmp_path / "engine")
    done = run(*common)
    assert "ASSUMED" in done.stdout
    assert "0..255" in done.stdout  # its first operation divides by 255
    done = run(*common, "--check", pictures, "--scores", scores)
    assert done.returncode == 0, done.stderr
    assert "ASSUMED" not in done.stdout
    spec = ModelSpec.load(tmp_path / "engine" / "model.json")
    assert spec.preprocess.interpolation == "pillow-nearest"
    done = run("label", pictures / "0.png", "--engine", tmp_path / "engine", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_scores_that_nothing_explains_are_one_line_and_nothing_is_written(
    foreign: Path, tmp_path: Path
) -> None:
    pictures, table = _save_pictures(tmp_path / "pictures"), tmp_path / "scores.npy"
    np.save(table, np.eye(len(LABELS), dtype=np.float32)[: len(PICTURES)])
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    done = run(
        *("adopt", foreign, "--labels", tmp_path / "labels.txt", "--out", tmp_path / "engine"),
        *("--check", pictures, "--scores", table, "--preprocess", "0..255,rgb"),
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nothing was written" in done.stderr
    assert not (tmp_path / "engine").exists()


def test_thresholds_are_fitted_on_labelled_pictures(foreign: Path, tmp_path: Path) -> None:
    _save_pictures(tmp_path / "pictures")
    names = [max(zip(row, LABELS, strict=True))[1] for row in _scores(keras(), foreign).values()]
    rows = [f"pictures/{i}.png,{name}" for i, name in enumerate(names)]
    (tmp_path / "table.csv").write_text("\n".join(["file,labels", *rows]))
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    done = run(
        *("adopt", foreign, "--labels", tmp_path / "labels.txt", "--out", tmp_path / "engine"),
        *("--labelled", tmp_path / "table.csv", "--preprocess", "0..255,pillow-nearest"),
    )
    assert done.returncode == 0, done.stderr
    spec = ModelSpec.load(tmp_path / "engine" / "model.json")
    assert spec.threshold_fit.num_images == len(PICTURES)
    assert len(set(spec.thresholds)) > 1
    with Recognizer.from_engine(tmp_path / "engine") as recognizer:
        for picture, name in zip(PICTURES, names, strict=True):
            assert recognizer(picture).labels[0].label == name
    assert "never named" not in done.stderr
    wrong = [f"pictures/{i}.png,{LABELS[LABELS.index(n) - 1]}" for i, n in enumerate(names)]
    (tmp_path / "table.csv").write_text("\n".join(["file,labels", *wrong]))
    done = run(*done.args[3:], "--rule", "precision=0.9")
    assert "never named on these pictures, though they are there: " in done.stderr


def test_softmax_says_that_one_label_at_most_is_likely_and_sigmoid_does_not(
    foreign: Path, tmp_path: Path
) -> None:
    assert Adoption(foreign, WISHES).finish().spec.adopted.exclusive  # type: ignore[union-attr]
    small(tmp_path / "logits.onnx", ("x", [1, 3, 64, 64]), "y", last="")
    guessed = Adoption(tmp_path / "logits.onnx", WISHES)
    assert (guessed.activation, guessed.exclusive) == ("softmax", True)
    assert guessed.finish().spec.adopted.assumed[-1] == "activation softmax"  # type: ignore[union-attr]
    half = Wishes(parse_recipe("0..1,rgb"), LABELS, "softmax")
    assumed = Adoption(tmp_path / "logits.onnx", half).finish().spec.adopted
    assert assumed is not None
    assert assumed.assumed == ("stretch,area",)  # the rest was said
    said = Adoption(tmp_path / "logits.onnx", replace(WISHES, activation="sigmoid"))
    assert not said.exclusive
    with pytest.raises(SpecError, match="no probability: say --activation"):
        Adoption(tmp_path / "logits.onnx", replace(WISHES, activation="none"))


def test_one_logit_is_a_sigmoids_and_what_is_activated_is_not_activated_again(
    foreign: Path, tmp_path: Path
) -> None:
    place = tmp_path / "one.onnx"
    model = small(place, ("x", [1, 3, 64, 64]), "y", last="")
    for item in model.graph.initializer:  # two classes less one: how much surer it is of the first
        if item.name in {"dense", "bias"}:
            values = numpy_helper.to_array(item)
            item.CopyFrom(numpy_helper.from_array(values[..., :1].copy(), item.name))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, place)
    wishes = replace(WISHES, labels=LABELS[:1])
    one = Adoption(place, wishes)
    assert (one.activation, one.activation_is_guess) == ("sigmoid", True)
    assert one.finish().spec.files["model.onnx"].golden.scores[0] < 1
    with pytest.raises(SpecError, match="always 1: say --activation sigmoid"):
        Adoption(place, replace(wishes, activation="softmax"))
    for again in ("softmax", "sigmoid"):
        with pytest.raises(SpecError, match="ends in a Softmax already"):
            Adoption(foreign, replace(WISHES, activation=again))


def _reshaping(path: Path, *, mixing: bool, number: int = 1) -> None:
    """Its shapes say for how many it was exported; where it mixes, a batch cannot be one at all."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense"], ["logits"]),
    ]
    at = "logits"
    if mixing:
        nodes.append(helper.make_node("ReduceMean", [at], ["mean"], axes=[0, 1], keepdims=1))
        nodes.append(helper.make_node("Mul", [at, "mean"], ["less"]))
        at = "less"
    nodes.append(helper.make_node("Softmax", [at], ["y"], axis=1))
    dense = np.random.default_rng(0).normal(0, 3, (3, len(LABELS))).astype(np.float32)
    dense += 2 * mixing
    graph = helper.make_graph(
        nodes,
        "reshaping",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [number, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [number, len(LABELS)])],
        [
            numpy_helper.from_array(dense, "dense"),
            numpy_helper.from_array(np.array([number, 3]), "shape"),
        ],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_a_model_for_one_picture_takes_many_in_one_run_or_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    for mixing in (False, True):
        _reshaping(path, mixing=mixing)
        engine = Adoption(path, WISHES).finish().write(tmp_path / f"engine{mixing}")
        spec = ModelSpec.load(engine.with_suffix(".json"))
        assert spec.adopted is not None
        assert spec.adopted.one_by_one == mixing
        batch = onnx.load(engine).graph.input[0].type.tensor_type.shape.dim[0]
        assert bool(batch.dim_param) or mixing
        with Recognizer.from_engine(engine, provider="cpu") as recognizer:
            alone = np.stack([recognizer(picture).scores for picture in PICTURES])
            together = [p.scores for p in recognizer.recognize_batch(PICTURES)]
        assert np.abs(alone - np.stack(together)).max() < 1e-6


def test_a_model_for_two_pictures_takes_any_number_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    _reshaping(path, mixing=False, number=2)
    with Recognizer.from_engine(
        Adoption(path, WISHES).finish().write(tmp_path / "e")
    ) as recognizer:
        assert len(recognizer.recognize_batch(PICTURES[:3])) == 3
    _reshaping(path, mixing=True, number=2)
    with pytest.raises(EngineError, match=r"takes 2 pictures at a time, .* export it for one"):
        Adoption(path, WISHES).finish()


@pytest.mark.parametrize("any_", ["N", -1])
def test_sizes_that_vary_are_written_as_letters_or_as_minus_one(
    tmp_path: Path, any_: str | int
) -> None:
    path = tmp_path / "model.onnx"
    small(path, ("x", [any_, 3, any_, any_]), "y")
    model = onnx.load(path)
    for item in model.opset_import:
        item.domain = item.domain or "ai.onnx"  # its other name
    path.write_bytes(model.SerializeToString())
    adoption = Adoption(path, replace(WISHES, recipe=parse_recipe("size=32")))
    with Recognizer.from_engine(adoption.finish().write(tmp_path / "engine")) as recognizer:
        assert len(recognizer.recognize_batch(PICTURES[:2])) == 2


@pytest.mark.parametrize("cut", [0, 1, 40, 1000, -3])
def test_a_file_that_was_cut_short_is_refused(foreign: Path, cut: int) -> None:
    foreign.write_bytes(foreign.read_bytes()[:cut])
    with pytest.raises(EngineError):
        Adoption(foreign, WISHES)


def test_constants_beside_the_model_come_into_the_one_file(tmp_path: Path) -> None:
    keras().write(tmp_path / "whole.onnx")
    onnx.save(
        onnx.load(tmp_path / "whole.onnx"),
        tmp_path / "parts.onnx",
        save_as_external_data=True,
        location="parts.data",
        size_threshold=0,
    )
    found = [Adoption(tmp_path / name, WISHES).finish() for name in ("whole.onnx", "parts.onnx")]
    golden = [adopted.spec.files["model.onnx"].golden for adopted in found]
    assert golden[0] == golden[1]


def test_a_strip_of_pixels_does_not_fill_the_memory() -> None:
    strip = np.zeros((1, 60_000, 3), np.uint8)
    for resize in get_args(Resize):
        spec = PreprocessSpec((224, 224), (0, 0, 0), (1, 1, 1), resize, "bilinear")
        tracemalloc.start()
        assert preprocess(strip, spec).shape == (224, 224, 3)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 64 * 2**20, resize


def test_the_metadata_of_others_is_told_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "yolo.onnx"
    ultralytics().write(path)
    adopted = Adoption(path, Wishes()).finish()
    assert adopted.spec.labels == LABELS
    assert adopted.spec.preprocess.resize == "crop"
    kept = {p.key: p.value for p in onnx.load_from_string(adopted.content).metadata_props}
    assert kept["task"] == "classify"


@pytest.mark.parametrize("missing", ["torch", "onnx"])
def test_adopting_needs_no_torch_and_says_that_it_needs_onnx(
    foreign: Path, tmp_path: Path, missing: str
) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    code = f"import sys; sys.modules[{missing!r}] = None; import cmlr_edge.cli as c; c.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "adopt", foreign, "--labels", tmp_path / "labels.txt"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    if missing == "torch":
        assert done.returncode == 0, done.stderr
    else:
        assert "pip install 'cmlr-edge[adopt]'" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["two\nlines", "half \udcff"])
def test_a_name_that_no_spec_may_hold_is_refused(foreign: Path, name: str) -> None:
    with pytest.raises(SpecError, match="printable"):
        Adoption(foreign, replace(WISHES, name=name)).finish()
