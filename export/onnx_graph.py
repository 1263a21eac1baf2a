"""Deploy model -> ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from torch.export import Dim

from cmlr_edge.backends.onnx_rows import TOKENS
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME, PreprocessSpec
from export.attention import add_body, onnx_translation
from export.deploy import DeployModel, FusedModel, WithTokens
from export.explain import ExplainedModel, ExplainedWithTokens, explain, tokens_hw
from export.fold_graph import fold_graph
from export.fuse import fuse
from export.fusion_report import FusionReport
from train.network.model import CausalRecognizer

OPSET = 18
_SMALL = 256  # elements; below this a constant is not worth a Cast node


def export_fused(
    model: CausalRecognizer, spec: PreprocessSpec, *, norms: bool = True
) -> tuple[onnx.ModelProto, FusionReport]:
    """Trained network -> float32 graph with everything folded that hangs on weights alone.

    Args:
        model: Stays as it is.
        spec: Size, mean and std of its input.
        norms: See `fold_graph`.
    """
    fused, report = fuse(model, spec)
    exported = export_onnx(fused, spec.size_hw)
    return exported, report.with_folds(fold_graph(exported, norms=norms))


def export_explained(
    model: CausalRecognizer, spec: PreprocessSpec, *, norms: bool = True
) -> tuple[onnx.ModelProto, FusionReport, ExplanationSpec]:
    """Do as `export_fused`, with the outputs that explain the scores, and say what they mean.

    Raises:
        EngineError: The scores are no sum of logits.
    """
    fused, report = fuse(model, spec)
    explained, meaning = explain(model, fused, tokens_hw(fused, spec.size_hw))
    exported = export_onnx(explained, spec.size_hw, further=[*meaning.shapes])
    return exported, report.with_folds(fold_graph(exported, norms=norms)), meaning


def export_onnx(
    model: DeployModel | FusedModel | ExplainedModel,
    size_hw: tuple[int, int],
    *,
    further: Sequence[str] = (),
) -> onnx.ModelProto:
    """Trace the model with a dynamic batch.

    Args:
        model: In evaluation mode.
        size_hw: Size of the frames.
        further: Names of its outputs behind the scores.

    Returns:
        uint8 `frames` (N, H, W, 3) -> float32 `scores` (N, L), checked by onnx. Of a rewritten network
        the tokens have their name, by which labels can be added later.
    """
    shows_tokens = isinstance(model, FusedModel | ExplainedModel)
    frames = torch.zeros((2, *size_hw, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own deprecations; it prints progress
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _showing_tokens(model).eval(),
            (frames,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME, *further, *[TOKENS] * shows_tokens],
            dynamic_shapes={"frames": {0: Dim("batch")}},
            optimize=False,
            custom_translation_table=onnx_translation(),
        )
        assert program is not None
        # Constants are folded here, but batch-norm stays: folded into a convolution its weights
        # would no longer be the trained ones, and could not be stored as float16 without loss.
        # Runtimes fold it when they load the file.
        onnxscript.optimizer.fold_constants(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
        if further:  # what they look through is computed once
            CommonSubexpressionEliminationPass()(program.model)
    proto = program.model_proto
    for node in proto.graph.node:  # the exporter's notes name files of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    for value in [v for v in proto.graph.output if v.name == TOKENS]:
        proto.graph.value_info.append(value)  # a name and a shape is all that is wanted of it
        proto.graph.output.remove(value)
    add_body(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _showing_tokens(model: DeployModel | FusedModel | ExplainedModel) -> torch.nn.Module:
    if isinstance(model, ExplainedModel):
        return ExplainedWithTokens(model)
    return WithTokens.of(model) if isinstance(model, FusedModel) else model


def store_as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Halve the file: keep float32 constants as float16 wherever that loses nothing.

    The graph still computes in float32; a runtime widens the constants when it loads the file.

    Returns:
        A copy with a Cast behind every constant that was narrowed.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    casts = []
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL:
            continue
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float16)
        if not np.array_equal(narrow.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(narrow, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    onnx.checker.check_model(result, full_check=True)
    return result
