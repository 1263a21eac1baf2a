"""Requests and answers of the Open Inference Protocol, version 2, as KServe and Triton speak it."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.bounds import MAX_STREAM_PIXELS, check_size
from cmlr_edge.errors import CaptureError, EngineError, FrameError
from cmlr_edge.model.strict_json import json_value
from cmlr_edge.prediction import Prediction

MAX_PICTURES = 32  # in a request
# Of the JSON: as lists and objects it takes many times as much memory.
MAX_JSON = 8 * 2**20
PICTURES, FRAMES = "pictures", "frames"
SCORES, PRESENT, LABELS = "scores", "present", "labels"
OUTPUTS = {SCORES: "FP32", PRESENT: "BOOL", LABELS: "BYTES"}
_NESTED = 4  # lists in lists


def metadata(name: str, num_labels: int) -> dict[str, Any]:
    """What a client asks for before it sends anything."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": "cmlr_edge",
        "inputs": [
            {"name": PICTURES, "datatype": "BYTES", "shape": [-1]},
            {"name": FRAMES, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
        ],
        "outputs": [
            {"name": SCORES, "datatype": "FP32", "shape": [-1, num_labels]},
            {"name": PRESENT, "datatype": "BOOL", "shape": [-1, num_labels]},
            {"name": LABELS, "datatype": "BYTES", "shape": [num_labels]},
        ],
    }


@dataclass(frozen=True)
class InferAnswer:
    """The body of an answer."""

    body: bytes
    json_length: int | None  # of the JSON before tensors as they lie in memory; None: all is JSON


@dataclass(frozen=True)
class InferRequest:
    """Pictures to be recognised, and what is to be told of them."""

    id: str | None
    pictures: Sequence[bytes | NDArray[np.uint8]]  # files, or pixels (H, W, 3), RGB
    outputs: dict[str, bool]  # name -> whether as it lies in memory

    @classmethod
    def read(cls, body: bytes, json_length: int | None) -> InferRequest:
        """Read a request; see `PictureDesk.infer`.

        Raises:
            FrameError: It is malformed, or asks for too much.
        """
        end = len(body) if json_length is None else json_length
        if not 0 <= end <= min(len(body), MAX_JSON):
            raise FrameError(
                f"the JSON has {end} bytes of {len(body)}: expected at most {MAX_JSON}; send "
                "pictures behind it, with Inference-Header-Content-Length"
            )
        try:
            value = json_value(body[:end])
        except ValueError as error:
            raise FrameError(f"the request is no JSON: {error}") from error
        inputs = value.get("inputs") if isinstance(value, dict) else None
        if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
            raise FrameError(f"expected an object with one of the inputs {PICTURES} and {FRAMES}")
        pictures = _read_input(inputs[0], body[end:])
        id_ = value.get("id")
        return cls(id_ if isinstance(id_, str) else None, pictures, _wanted(value))

    def answer(
        self, found: Sequence[Prediction], name: str, labels: tuple[str, ...]
    ) -> InferAnswer:
        """Build the answer.

        Raises:
            EngineError: The model gave no numbers.
        """
        scores = np.stack([prediction.scores for prediction in found]).astype("<f4")
        if not np.isfinite(scores).all():
            raise EngineError(f"{name} gave scores that are no numbers")
        present = np.zeros(scores.shape, bool)
        index = {label: i for i, label in enumerate(labels)}
        for row, prediction in zip(present, found, strict=True):
            row[[index[item.label] for item in prediction.labels]] = True
        tensors: dict[str, tuple[Any, list[int], bytes]] = {
            SCORES: (scores.ravel().tolist(), [*scores.shape], scores.tobytes()),
            PRESENT: (present.ravel().tolist(), [*present.shape], present.tobytes()),
            LABELS: ([*labels], [len(labels)], _with_lengths([v.encode() for v in labels])),
        }
        outputs, parts = [], []
        for output, is_binary in self.outputs.items():
            values, shape, raw = tensors[output]
            told = {"name": output, "datatype": OUTPUTS[output], "shape": shape}
            if is_binary:
                parts.append(raw)
                outputs.append({**told, "parameters": {"binary_data_size": len(raw)}})
            else:
                outputs.append({**told, "data": values})
        record = {"model_name": name, "model_version": "1", "outputs": outputs}
        record |= {} if self.id is None else {"id": self.id}
        text = json.dumps(record, allow_nan=False).encode()
        return InferAnswer(b"".join([text, *parts]), len(text) if parts else None)


def _wanted(value: dict[str, Any]) -> dict[str, bool]:
    """Names of the outputs, and whether each is wanted as it lies in memory."""
    usual = _parameter(value, "binary_data_output") is True
    listed = value.get("outputs")
    if listed in (None, []):
        return dict.fromkeys(OUTPUTS, usual)
    wanted = {}
    for item in listed if isinstance(listed, list) else [None]:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(name, str) or name not in OUTPUTS:
            raise FrameError(f"outputs should name some of {', '.join(OUTPUTS)}")
        own = _parameter(item, "binary_data")
        wanted[name] = usual if own is None else own is True
    return wanted


def _parameter(value: dict[str, Any], name: str) -> Any:
    parameters = value.get("parameters")
    return parameters.get(name) if isinstance(parameters, dict) else None


def _read_input(tensor: dict[str, Any], rest: bytes) -> Sequence[bytes | NDArray[np.uint8]]:
    kind = tensor.get("name"), tensor.get("datatype")
    if kind not in ((PICTURES, "BYTES"), (FRAMES, "UINT8")):  # lists cannot be in a set
        raise FrameError(f"expected {PICTURES} of BYTES or {FRAMES} of UINT8, got {str(kind)[:80]}")
    shape = _shape(tensor.get("shape"))
    size = _parameter(tensor, "binary_data_size")
    if size is not None and size != len(rest):
        raise FrameError(f"binary_data_size is {str(size)[:20]}, {len(rest)} bytes came")
    raw = None if size is None else rest
    if kind[0] == PICTURES:
        pictures = _texts(tensor.get("data")) if raw is None else _parted(raw)
        if len(pictures) != math.prod(shape):
            raise FrameError(f"shape {shape} is not that of {len(pictures)} pictures")
        _check_number(len(pictures))
        return pictures
    return [*_frames(shape, tensor.get("data"), raw)]


def _shape(value: Any) -> list[int]:
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= _NESTED
        or not all(type(side) is int and 1 <= side < 2**31 for side in value)
    ):
        raise FrameError(f"shape should be numbers above 0, got {str(value)[:60]}")
    return value


def _check_number(number: int) -> None:
    if not 1 <= number <= MAX_PICTURES:
        raise FrameError(f"{number} pictures came: expected 1 to {MAX_PICTURES} in a request")


def _texts(data: Any) -> list[bytes]:
    """Pictures in JSON: base64, for JSON holds no bytes."""
    for _ in range(_NESTED - 1):
        if isinstance(data, list) and any(isinstance(item, list) for item in data):
            data = [x for item in data for x in (item if isinstance(item, list) else [item])]
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise FrameError("data should be a list of pictures as base64, or lie behind the JSON")
    try:
        return [base64.b64decode(item, validate=True) for item in data]
    except (binascii.Error, ValueError) as error:
        raise FrameError(f"data is no base64: {error}") from error


def _parted(raw: bytes) -> list[bytes]:
    """Elements of BYTES: each has its length before it, four bytes, the lowest first."""
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise FrameError("the pictures behind the JSON are cut short")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw) or len(found) == MAX_PICTURES:
            raise FrameError(f"behind the JSON lie not 1 to {MAX_PICTURES} pictures with lengths")
        found.append(raw[at - length : at])
    return found


def _with_lengths(items: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def _frames(shape: list[int], data: Any, raw: bytes | None) -> NDArray[np.uint8]:
    if len(shape) != 4 or shape[3] != 3:
        raise FrameError(f"{FRAMES} has shape {shape}: expected (N, H, W, 3), RGB")
    _check_number(shape[0])
    try:
        check_size(shape[2], shape[1], MAX_STREAM_PIXELS, "it is a picture")
    except CaptureError as error:
        raise FrameError(str(error)) from error
    try:
        values = np.array(data) if raw is None else np.frombuffer(raw, np.uint8)
    except ValueError as error:
        raise FrameError(f"data is no tensor: {error}") from error
    wanted = math.prod(shape)
    if values.size != wanted or values.dtype.kind not in "iu":
        raise FrameError(f"{FRAMES} has {values.size} values, {wanted} whole numbers expected")
    if values.ndim > 1 and [*values.shape] != shape:  # axes in another order: another picture
        raise FrameError(f"{FRAMES} is nested as {[*values.shape]}, and its shape says {shape}")
    if values.dtype != np.uint8 and not 0 <= values.min() <= values.max() <= 255:
        raise FrameError(f"{FRAMES} holds values outside 0 to 255")
    return values.astype(np.uint8).reshape(shape)
