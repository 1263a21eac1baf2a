"""Deploy model -> ONNX."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, NameFixPass
from torch.export import Dim

from cmlr_edge.backends.onnx_rows import TOKENS
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME, PreprocessSpec
from export.attention import add_body, as_operator, onnx_translation
from export.deploy import DeployModel, WithTokens
from export.explain import ExplainedModel, explanation_of, tokens_hw
from export.fold_graph import fold_constants, fold_graph
from export.fusion_report import FusionReport, count_parts
from train.network.model import CausalRecognizer

OPSET = 18
_SCOPES = "pkg.torch.onnx.name_scopes"  # of a node, its modules from the outermost in
_SMALL = 256  # elements; below this a constant is not worth a Cast node


def export_fused(
    model: CausalRecognizer,
    spec: PreprocessSpec,
    *,
    norms: bool = True,
) -> tuple[onnx.ModelProto, FusionReport]:
    """Trained network -> float32 graph with everything folded that hangs on weights alone.

    Args:
        model: Stays as it is.
        spec: Size, mean and std of its input.
        norms: See `fold_graph`.
    """
    traced = _trace(DeployModel(model, spec).eval(), spec.size_hw)
    return _folded(traced, norms=norms)


def export_explained(
    model: CausalRecognizer, spec: PreprocessSpec, *, norms: bool = True
) -> tuple[onnx.ModelProto, FusionReport, ExplanationSpec]:
    """Do as `export_fused`, with the outputs that explain the scores, and say what they mean.

    Raises:
        EngineError: The scores are no sum of logits.
    """
    meaning = explanation_of(model, tokens_hw(model, spec.size_hw))
    explained = ExplainedModel(model, spec, meaning).eval()
    traced = _trace(explained, spec.size_hw, [*meaning.shapes])
    return *_folded(traced, norms=norms), meaning


def _folded(traced: onnx.ModelProto, *, norms: bool) -> tuple[onnx.ModelProto, FusionReport]:
    before = count_parts(traced)
    exported = _with_constants_folded(traced)
    notes = fold_graph(exported, norms=norms)
    return exported, FusionReport.of(before, count_parts(exported), notes)


def export_onnx(model: DeployModel, size_hw: tuple[int, int]) -> onnx.ModelProto:
    """Trace the model with a dynamic batch; constants are folded.

    Args:
        model: In evaluation mode.
        size_hw: Size of the frames.

    Returns:
        uint8 `frames` (N, H, W, 3) -> float32 `scores` (N, L), checked by onnx. The backbone's tokens
        have their name, by which labels can be added later.
    """
    return _with_constants_folded(_trace(model, size_hw))


def _trace(
    model: DeployModel, size_hw: tuple[int, int], further: Sequence[str] = ()
) -> onnx.ModelProto:
    """What PyTorch says of it, every node named by its part and module."""
    frames = torch.zeros((2, *size_hw, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own deprecations; it prints progress
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with as_operator(model):
            program = torch.onnx.export(
                WithTokens(model).eval(),
                (frames,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME, *further, TOKENS],
                dynamic_shapes={"frames": {0: Dim("batch")}},
                optimize=False,
                custom_translation_table=onnx_translation(),
            )
        assert program is not None
    _name_nodes(program.model.graph)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    NameFixPass()(program.model)  # an output may be named as PyTorch names something inside
    return program.model_proto


def _name_nodes(graph: onnx_ir.Graph) -> None:
    """PART/MODULE/OPERATOR_NUMBER, of the parts pixels, backbone and head.

    The tokens, the last output, keep their name and are no output any more.
    """
    tokens = graph.outputs.pop()
    before = {tokens}
    for node in reversed(graph):
        if before & {*node.outputs}:
            before |= {value for value in node.inputs if value is not None}
    part = "pixels"
    for i, node in enumerate(graph):
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))[:-1]
        module = scopes[-1] if scopes else ""
        for outer in ("deploy", "model"):
            module = module.removeprefix(outer).removeprefix(".")
        module = "" if module.startswith("_") else module  # of PyTorch's own making
        inside, _, rest = module.partition(".")
        if not before & {*node.outputs}:
            part = "head"
        elif inside == "backbone":
            part = "backbone"
        module = rest if inside == "backbone" else module
        node.name = "/".join(filter(None, [part, module, f"{node.op_type}_{i}"]))


def _with_constants_folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    # Batch-norm stays here: folded into a convolution its weights would no longer be the trained
    # ones, and could not be stored as float16 without loss. Runtimes fold it when they load the file.
    model = onnx_ir.serde.deserialize_model(proto)
    onnxscript.optimizer.fold_constants(model)
    onnxscript.optimizer.remove_unused_nodes(model)
    CommonSubexpressionEliminationPass()(
        model
    )  # what further outputs look through is computed once
    proto = onnx_ir.serde.serialize_model(model)
    for node in proto.graph.node:  # the exporter's notes name files of the exporting machine
        del node.metadata_props[:]
        node.doc_string = ""
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    add_body(proto)
    fold_constants(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


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
