"""The sum that an engine tells, for every head, against its score and against the trained network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cmlr_edge import Recognizer
from cmlr_edge.backends.onnx_outputs import with_outputs
from cmlr_edge.errors import EngineError
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.place.prior import average_over
from cmlr_edge.why import Explain, Reasons
from export.building import build_engine
from export.explain import ExplainedModel, explanation_of
from export.onnx_graph import export_explained, export_fused
from export.precision import to_float16
from export.verify import sum_errors, verify_explanation
from tests.export.networks import CASES, input_spec, random_frames, randomized, small
from tests.export.runtimes import run_everywhere
from tests.export.sums import check_sum
from train.network.checkpoint import load_state
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer, DecoderLayer

_ONE_OF_EACH = [
    "matrix, own, one layer, own cause true",
    "attention, prior, two layers, one head, own cause false",
]


def network(name: str) -> CausalRecognizer:
    return randomized(small(*CASES[name]))


@cache
def exported(name: str) -> tuple[CausalRecognizer, onnx.ModelProto, ExplanationSpec]:
    model = network(name)
    graph, _, meaning = export_explained(model, input_spec(model))
    return model, graph, meaning


@pytest.mark.parametrize("name", CASES)
def test_every_sum_is_that_of_its_score(name: str) -> None:
    check_sum(name, network(name), random_frames(2))


@pytest.mark.parametrize("name", _ONE_OF_EACH)
def test_every_runtime_tells_the_same(name: str) -> None:
    model, graph, meaning = exported(name)
    frames = random_frames(2)
    explained = ExplainedModel(model, input_spec(model), meaning).eval()
    with torch.no_grad():
        expected = [o.numpy() for o in explained.outputs(explained.tokens(frames))]
    names = [output.name for output in graph.graph.output]
    assert names == ["scores", *meaning.shapes]
    for outputs in run_everywhere(graph, {"frames": frames.numpy()}):
        found = dict(zip(names, outputs, strict=True))
        for output, array in zip(names, expected, strict=True):
            np.testing.assert_allclose(found[output], array, atol=1e-4, err_msg=output)
        difference, allowed = sum_errors(found, meaning)
        assert (difference <= allowed).all()


def test_amounts_and_maps_are_what_the_trained_network_computes() -> None:
    model = network("matrix, own, one layer, own cause false")
    meaning = explanation_of(model, (2, 2))
    explained = ExplainedModel(model, input_spec(model), meaning).eval()
    frames = random_frames(2)
    with torch.no_grad():
        tokens = explained.tokens(frames)
        found = explained.outputs(tokens)
        outputs = dict(zip(["scores", *meaning.shapes], found, strict=True))
        output = model.head(tokens)
        assert isinstance(model.intervention, BackDoorIntervention)
        own = model.intervention.context_logits(model.intervention.own_context(tokens))
        torch.testing.assert_close(outputs["surroundings"], own, atol=1e-5, rtol=0)
        assert output.causal_logits is not None
        links = outputs["links"].sum(-1)
        torch.testing.assert_close(links, output.causal_logits, atol=1e-5, rtol=0)
        assert model.decoder is not None
        layer = model.decoder.layers[0]
        assert isinstance(layer, DecoderLayer)
        queries, memory = model.decoder.label_queries, model.decoder.memory(tokens)
        weights = layer.cross_attention.weights(queries, memory)
        torch.testing.assert_close(outputs["attention"].flatten(2), weights, atol=1e-5, rtol=0)
        averaged = model.scores(output, "prior")
        torch.testing.assert_close(outputs["other_scores"], averaged, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", _ONE_OF_EACH)
def test_averaging_over_trainings_own_prior_is_what_the_network_averages(name: str) -> None:
    """What the SDK does for a place, with the numbers of the spec, is the intervention's own sum."""
    model = network(name)
    meaning = explanation_of(model, (2, 2))
    assert meaning.training is not None
    explained = ExplainedModel(model, input_spec(model), meaning).eval()
    with torch.no_grad():
        tokens = explained.tokens(random_frames(2))
        found = [output.numpy() for output in explained.outputs(tokens)]
        averaged = model.scores(model.head(tokens), "prior").numpy()
    outputs = dict(zip(["scores", *meaning.shapes], found, strict=True))
    labels = tuple(map(str, range(averaged.shape[1])))
    thresholds = np.full(len(labels), 0.5, np.float32)
    for row, reasons in enumerate(
        Reasons.of(outputs, meaning, labels, thresholds, Explain(), model="m")
    ):
        placed = average_over(reasons, np.array(meaning.training.prior))
        np.testing.assert_allclose(placed.scores, averaged[row], atol=2e-5)


def test_weights_that_do_not_tell_how_training_was_spread_tell_no_place(tmp_path: Path) -> None:
    model = network(_ONE_OF_EACH[0])
    tensors = {k: v for k, v in model.state_dict().items() if not k.endswith("context_spread")}
    older = small(*CASES[_ONE_OF_EACH[0]])
    again = CausalRecognizer(older, model.num_labels, pretrained=False).eval()
    load_state(again, tensors, tmp_path)
    meaning = explanation_of(again, (2, 2))
    assert meaning.num_confounders > 0
    assert meaning.training is None


def test_without_being_asked_an_engine_computes_bit_for_bit_what_it_did() -> None:
    model, explained, meaning = exported(_ONE_OF_EACH[0])
    spec, frames = input_spec(model), random_frames(3).numpy()
    plain, _ = export_fused(model, spec)
    pruned = onnx.load_from_string(with_outputs(explained.SerializeToString(), {"scores"}))
    assert [n.op_type for n in pruned.graph.node] == [n.op_type for n in plain.graph.node]
    expected = run_everywhere(plain, {"frames": frames})
    for found, wanted in zip(run_everywhere(pruned, {"frames": frames}), expected, strict=True):
        np.testing.assert_array_equal(found[0], wanted[0])
    narrow = to_float16(explained)
    names = [output.name for output in narrow.graph.output]
    outputs = dict(zip(names, run_everywhere(narrow, {"frames": frames})[0], strict=True))
    difference, allowed = sum_errors(outputs, meaning, "float16")
    assert (difference <= allowed).all()


@pytest.fixture(scope="module")
def built(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    build_engine(tiny_run, folder, explain=True)
    return folder


def test_build_engine_writes_what_the_outputs_mean_and_the_sdk_reads_it(built: Path) -> None:
    spec = ModelSpec.load(built / "model.json")
    meaning = spec.explanation
    assert meaning is not None
    assert meaning.training is not None
    assert meaning.training.pictures == spec.provenance.num_train_images > 0
    assert {"own_evidence", "links", "surroundings", "attention"} <= {*meaning.outputs}
    frames = random_frames(4).numpy()
    for provider in ("cpu", "openvino"):
        with Recognizer.from_engine(built, provider=provider) as recognizer:
            for prediction in recognizer.recognize_batch(frames, explain=True):
                assert prediction.why is not None
                for label, score in zip(recognizer.labels, prediction.scores, strict=True):
                    logit = float(np.log(score / (1 - np.float64(score))))
                    assert prediction.why[label].logit == pytest.approx(logit, abs=1e-5)


def test_a_file_whose_sum_is_another_is_not_written(built: Path) -> None:
    path, spec = built / "model.onnx", ModelSpec.load(built / "model.json")
    assert spec.explanation is not None
    moved = tuple(value + 0.01 for value in spec.explanation.bias)
    wrong = replace(spec, explanation=replace(spec.explanation, bias=moved))
    with pytest.raises(EngineError, match=r"adds up to 0\.01 logits beside it"):
        verify_explanation(path, path.read_bytes(), wrong, random_frames(1).numpy(), "float32")
