"""Labels appended to an ONNX file: what they say, what stays as it was, and what is refused."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.onnx_rows import (
    Row,
    features_of,
    find_tokens,
    rows_of,
    with_rows,
    without_rows,
)
from cmlr_edge.backends.onnx_structure import check_structure
from cmlr_edge.errors import EngineError
from tests.cmlr_edge.teaching.patches import WIDTH, patch_model, patterns
from tests.conftest import mean_color_model

PLACE = Path("model.onnx")


def added_to(content: bytes, rows: list[Row], place: int = 0) -> bytes:
    return with_rows(content, rows, 3, "model.onnx", find_tokens(content, "model.onnx")[place])


def tokens_of(content: bytes, frames: NDArray[np.uint8], place: int = 0) -> NDArray[np.float32]:
    tokens = find_tokens(content, "m")[place]
    return tokens.of(infer(features_of(content, tokens, "m"), frames))


def infer(content: bytes, frames: NDArray[np.uint8], provider: str = "cpu") -> NDArray[np.float32]:
    with closing(load_backend(PLACE, content, provider=provider)) as backend:
        return backend.infer(frames)


def random_row(seed: int) -> Row:
    rng = np.random.default_rng(seed)
    evidence, attention, mean = rng.normal(size=(3, WIDTH)).astype(np.float32)
    return Row(evidence, attention, mean, float(np.float32(rng.normal())))


def expected(row: Row, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    looks = np.exp(tokens @ row.attention)
    shares = looks / looks.sum(axis=1, keepdims=True)
    logits = (shares * (tokens @ row.evidence)).sum(axis=1) + tokens.mean(axis=1) @ row.mean
    return 1 / (1 + np.exp(-(logits + row.bias)))


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize("name", ["tokens", "transpose_7"])
def test_labels_say_what_their_rows_do_and_the_old_scores_keep_their_bits(
    name: str, provider: str
) -> None:
    content, frames = patch_model(name), patterns(5)
    rows = [random_row(seed) for seed in range(3)]
    added = added_to(content, rows)
    check_structure(added, "model.onnx")
    onnx.checker.check_model(onnx.load_from_string(added), full_check=True)
    old, new = infer(content, frames, provider), infer(added, frames, provider)
    assert np.array_equal(old.view(np.uint32), new[:, :3].copy().view(np.uint32))
    wanted = np.stack([expected(row, tokens_of(content, frames)) for row in rows], axis=1)
    np.testing.assert_allclose(new[:, 3:], wanted, atol=1e-5)
    # The other place says the same, and is the second choice: here it moves old scores in ONNX Runtime.
    again = infer(added_to(content, rows, place=1), frames, provider)
    np.testing.assert_allclose(again[:, 3:], wanted, atol=1e-5)
    np.testing.assert_allclose(tokens_of(content, frames, 1), tokens_of(content, frames, 0))


def test_what_was_added_can_be_read_back_and_taken_away_byte_for_byte() -> None:
    content, rows = patch_model(), [random_row(seed) for seed in range(2)]
    added = added_to(content, rows)
    assert without_rows(added, 3, "m") == content
    for wanted, found in zip(rows, rows_of(added, 2, "m"), strict=True):
        for name, values in vars(wanted).items():
            np.testing.assert_array_equal(getattr(found, name), values)
    # Every byte of a constant, and every node but the last, is in the new file as it was.
    nodes = [node.SerializeToString() for node in onnx.load_from_string(content).graph.node[:-1]]
    assert all(node in added for node in nodes)


def test_a_label_says_the_same_bits_whichever_others_there_are() -> None:
    content, frames = patch_model(), patterns(4)
    first, second = random_row(0), random_row(1)
    alone = infer(added_to(content, [second]), frames)[:, 3]
    beside = infer(added_to(content, [first, second]), frames)[:, 4]
    assert np.array_equal(alone, beside)


def without_value_info() -> bytes:
    model = onnx.load_from_string(patch_model())
    del model.graph.value_info[:]
    return model.SerializeToString()


def of_old_operators() -> bytes:
    model = onnx.load_from_string(patch_model())
    model.opset_import[0].version = 13
    return model.SerializeToString()


def with_readers_of_scores() -> bytes:
    model = onnx.load_from_string(patch_model())
    model.graph.node.append(onnx.helper.make_node("Relu", ["scores"], ["more"]))
    return model.SerializeToString()


def of_odd_bytes() -> bytes:
    """Like ours to every reader, but its graph's length is written with a byte more than needed."""
    content = patch_model()
    model = onnx.load_from_string(content)
    graph = model.graph.SerializeToString()
    head = onnx.ModelProto(ir_version=8, opset_import=model.opset_import).SerializeToString()
    size = len(graph)
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, 0])
    return head + b"\x3a" + length + graph


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (mean_color_model(), "which of its values are the tokens"),
        (without_value_info(), "which of its values are the tokens"),
        (of_old_operators(), "operators older than"),
        (with_readers_of_scores(), "does not come last"),
        (added_to(patch_model(), [random_row(0)]), "were added to it already"),
        (of_odd_bytes(), "written as none of ours"),
        (patch_model()[:-3], "not an ONNX file of ours"),
        (b"", "not an ONNX file of ours"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "not an ONNX file of ours"),
    ],
)
def test_what_cannot_be_taught_is_refused_in_one_line(content: bytes, why: str) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        added_to(content, [random_row(1)])
    assert "\n" not in str(caught.value)


def test_no_changed_byte_does_worse_than_be_refused() -> None:
    added = added_to(patch_model(), [random_row(0)])
    for place in range(len(added)):
        changed = bytearray(added)
        changed[place] ^= 0xFF
        for use in (
            lambda data: without_rows(data, 3, "m"),
            lambda data: rows_of(data, 1, "m"),
            lambda data: find_tokens(data, "m"),
        ):
            with suppress(EngineError):
                use(bytes(changed))


def test_float16_tokens_are_widened() -> None:
    model = onnx.load_from_string(patch_model())
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.output[0] == "tokens":
            node.output[0] = "wide"
        elif "tokens" in node.input:
            node.input[0] = "wide_again"
    narrow = onnx.helper.make_node("Cast", ["wide"], ["tokens"], to=onnx.TensorProto.FLOAT16)
    wide = onnx.helper.make_node("Cast", ["tokens"], ["wide_again"], to=onnx.TensorProto.FLOAT)
    nodes = [*model.graph.node]
    nodes[6:6] = [narrow, wide]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.value_info[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    content, frames = model.SerializeToString(), patterns(3)
    assert [place.narrow for place in find_tokens(content, "m")] == [True]
    row = random_row(2)
    old, new = infer(content, frames), infer(added_to(content, [row]), frames)
    assert np.array_equal(old, new[:, :3])
    wanted = expected(row, tokens_of(content, frames))
    np.testing.assert_allclose(new[:, 3], wanted, atol=1e-5)


def test_constants_are_little_endian_whatever_the_machine() -> None:
    vector = np.array([1.0, -2.0, 3.0], ">f4")
    row = Row(vector, vector, vector, 0.5)
    added = onnx.load_from_string(added_to(patch_model(), [row]))
    [tensor] = [t for t in added.graph.initializer if t.name == "added/0/evidence"]
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).ravel(), [1.0, -2.0, 3.0])
