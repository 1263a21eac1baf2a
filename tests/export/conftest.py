"""PyTorch traces a network once in a run of the tests, whoever exports it: each time takes five seconds."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from export import onnx_graph
from export.deploy import DeployModel
from tests.conftest import made_once


class _ByContent(pickle.Pickler):
    """Equal networks are the same bytes, in every process."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor):
            numbers = thing.detach().contiguous().numpy().tobytes()
            return tuple, ((str(thing.dtype), thing.shape, thing.stride(), numbers),)
        if isinstance(thing, nn.Module):
            has = {k: sorted(v) if isinstance(v, set) else v for k, v in vars(thing).items()}
            return tuple, ((type(thing), has),)
        return NotImplemented


@pytest.fixture(scope="module", autouse=True)
def _traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    trace = onnx_graph._trace

    def remembered(
        model: DeployModel, size_hw: tuple[int, int], further: Sequence[str] = ()
    ) -> onnx.ModelProto:
        content = io.BytesIO()
        _ByContent(content).dump((model, size_hw, *further))
        name = f"traces/{hashlib.sha256(content.getvalue()).hexdigest()}"
        return onnx.load(
            made_once(
                tmp_path_factory, name, lambda path: onnx.save(trace(model, size_hw, further), path)
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "_trace", remembered)
        yield
