"""What every network's explanation has to be: a sum of the score's logit, or one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cmlr_edge.errors import EngineError
from export.deploy import DeployModel
from export.explain import ExplainedModel, explanation_of, tokens_hw
from export.verify import sum_errors
from tests.export.networks import CASES, input_spec
from train.network.model import CausalRecognizer

_NO_SUM = {name for name in CASES if ", mean, " in name or name.startswith("explicit")} | {
    f"{name}, no confounders{standardised}"
    for name in ("expectation", "linear")
    for standardised in ("", ", standardised")
}


def check_sum(name: str, model: CausalRecognizer, frames: Tensor) -> None:
    """Of a network of `CASES`, on frames (N, H, W, 3)."""
    spec = input_spec(model)
    map_hw = tokens_hw(model, spec.size_hw)
    if name in _NO_SUM:
        with pytest.raises(EngineError, match=r"intervention '\w+' with fusion '\w+' has no sum"):
            explanation_of(model, map_hw)
        return
    meaning = explanation_of(model, map_hw)
    explained = ExplainedModel(model, spec, meaning).eval()
    with torch.no_grad():
        scores, *others = [o.numpy() for o in explained.outputs(explained.tokens(frames))]
        deployed = DeployModel(model, spec).eval()
        np.testing.assert_array_equal(scores, deployed(frames).numpy())
    found = {"scores": scores, **dict(zip(meaning.shapes, others, strict=True))}
    shapes = {output: array.shape[1:] for output, array in found.items()}
    assert shapes == {"scores": scores.shape[1:], **meaning.shapes}
    assert [*meaning.outputs] == [*meaning.shapes]
    difference, allowed = sum_errors(found, meaning)
    assert (difference <= allowed).all()
    if "links" in found:
        assert not np.diagonal(found["links"], axis1=1, axis2=2).any()
        assert np.abs(found["links"]).max() > 0
    if "attention" in found:
        np.testing.assert_allclose(found["attention"].sum((2, 3)), 1, atol=1e-5)
    if meaning.num_confounders:
        np.testing.assert_allclose(found["context"].sum(1), 1, atol=1e-5)
