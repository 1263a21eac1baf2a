"""The Open Inference Protocol: spoken by clients of others, and by who sends nonsense."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cmlr_edge import Recognizer
from cmlr_edge.errors import FrameError
from cmlr_edge.page.running import LiveServer
from cmlr_edge.page.tensors import InferRequest
from tests.cmlr_edge.page.live_page import get, get_json, post, serving
from tests.conftest import LABELS

MODEL = "/v2/models/mean%20colour"
TOKEN = "a token of many letters"
RED = np.full((30, 40, 3), (200, 20, 120), np.uint8)


@pytest.fixture
def page(engine: Path) -> Iterator[LiveServer]:
    with serving(engine, {"door": "test://?fps=5"}) as server:
        yield server


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def ask(server: LiveServer, value: Any, rest: bytes = b"", **headers: str) -> tuple[int, Any]:
    body = json.dumps(value).encode()
    if rest:
        headers["Inference_Header_Content_Length"] = str(len(body))
    status, _, answer = post(server, f"{MODEL}/infer", body + rest, **headers)
    return status, json.loads(answer)


def outputs(answer: Any) -> dict[str, Any]:
    return {item["name"]: item["data"] for item in answer["outputs"]}


def frames(pixels: np.ndarray[Any, Any], **changes: Any) -> dict[str, Any]:
    tensor = {"name": "frames", "datatype": "UINT8", "shape": [*pixels.shape]}
    return {"inputs": [tensor | {"data": pixels.ravel().tolist()} | changes]}


def test_the_model_is_described_and_answers(page: LiveServer, engine: Path) -> None:
    assert get(page, "/v2/health/live")[0] == get(page, "/v2/health/ready")[0] == 200
    told = get_json(page, MODEL)
    assert [item["name"] for item in told["inputs"]] == ["pictures", "frames"]
    assert told["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [-1, 3]}
    status, answer = ask(page, frames(RED[None]) | {"id": "one"})
    assert (status, answer["id"], answer["model_name"]) == (200, "one", "mean colour")
    found = outputs(answer)
    with Recognizer.from_engine(engine) as recognizer:
        expected = recognizer(RED, color="rgb")
    assert np.allclose(found["scores"], expected.scores)
    assert found["labels"] == [*LABELS]
    assert found["present"] == [True, False, False]


@pytest.mark.parametrize(
    "tensor",
    [
        {"name": "frames", "datatype": "UINT8", "shape": "\ud800"},
        {
            "name": "frames",
            "datatype": "UINT8",
            "shape": [1],
            "parameters": {"binary_data_size": "\ud800"},
        },
        {"name": "\ud800", "datatype": "UINT8", "shape": [1]},
        {"name": "pictures", "datatype": "BYTES", "shape": [1], "data": ["\ud800"]},
    ],
)
def test_half_a_character_is_refused_as_all_else(page: LiveServer, tensor: dict[str, Any]) -> None:
    status, answer = ask(page, {"inputs": [tensor]})
    assert status == 400, answer
    assert answer["error"]


def test_pictures_come_as_base64_or_as_they_are_and_answers_too(page: LiveServer) -> None:
    files = [png(RED), png(RED[..., ::-1].copy())]
    tensor = {"name": "pictures", "datatype": "BYTES", "shape": [2, 1]}
    text = [[base64.b64encode(file).decode()] for file in files]
    wanted = {"outputs": [{"name": "scores"}]}
    status, answer = ask(page, {"inputs": [tensor | {"data": text}], **wanted})
    assert status == 200, answer
    rest = b"".join(struct.pack("<I", len(file)) + file for file in files)
    behind = tensor | {"parameters": {"binary_data_size": len(rest)}}
    status, same = ask(page, {"inputs": [behind], **wanted}, rest)
    assert status == 200, same
    assert outputs(same) == outputs(answer)
    body = json.dumps(
        {"inputs": [behind], "parameters": {"binary_data_output": True}, **wanted}
    ).encode()
    header = {"Inference_Header_Content_Length": str(len(body))}
    status, told, raw = post(page, f"{MODEL}/infer", body + rest, **header)
    length = int(told["inference-header-content-length"])
    assert json.loads(raw[:length])["outputs"][0]["parameters"] == {"binary_data_size": 24}
    assert np.allclose(np.frombuffer(raw[length:], "<f4"), outputs(same)["scores"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "expected an object"),
        ({"inputs": []}, "one of the inputs"),
        ({"inputs": [{"name": "frames", "datatype": "FP32", "shape": [1]}]}, "of UINT8"),
        ({"inputs": [{"name": ["frames"], "datatype": {}, "shape": [1]}]}, "of UINT8"),
        (frames(RED[None], shape=[1, 30, 40, 4]), "expected (N, H, W, 3)"),
        (frames(RED[None], shape=[2, 30, 40, 3]), "7200 whole numbers expected"),
        (frames(RED[None], shape=[1, 2**31 - 1, 2**31 - 1, 3]), "pixels"),
        (frames(RED[None], shape=[-1, 30, 40, 3]), "numbers above 0"),
        (frames(RED[None], shape=[True]), "numbers above 0"),
        (frames(RED[None], data=[[1], [2, 3]]), "no tensor"),
        (frames(RED[None], data=[300] * 3600), "outside 0 to 255"),
        (frames(RED[None], data=[0.5] * 3600), "whole numbers"),
        (frames(RED[None], data=[10**400] * 3600), "whole numbers"),
        (frames(RED[None], data=None), "whole numbers"),
        (frames(np.zeros((33, 1, 1, 3), np.uint8)), "1 to 32 in a request"),
        (frames(RED[None], parameters={"binary_data_size": 5}), "0 bytes came"),
        (frames(RED[None]) | {"outputs": [{"name": "heat"}]}, "outputs should name"),
        (frames(RED[None]) | {"outputs": 3}, "outputs should name"),
        (
            {"inputs": [{"name": "pictures", "datatype": "BYTES", "shape": [1], "data": ["bm8="]}]},
            "picture 0: it is no picture",
        ),
        (
            {"inputs": [{"name": "pictures", "datatype": "BYTES", "shape": [1], "data": ["??"]}]},
            "no base64",
        ),
    ],
)
def test_what_is_no_request_is_told_what_was_wanted(
    page: LiveServer, value: Any, message: str
) -> None:
    status, answer = ask(page, value)
    assert status == 400
    assert message in answer["error"]


def test_frames_nested_in_another_order_than_their_shape_are_refused() -> None:
    def pictures_of(pixels: np.ndarray[Any, Any]) -> Any:
        value = frames(RED[None], data=pixels.tolist())
        return InferRequest.read(json.dumps(value).encode(), None).pictures

    assert np.array_equal(pictures_of(RED[None])[0], RED)
    with pytest.raises(FrameError, match="nested as"):
        pictures_of(RED[None].transpose(0, 3, 1, 2))


def test_hostile_requests_end_in_one_short_answer(page: LiveServer) -> None:
    for body, headers in [
        (b"[" * 200_000, {}),
        (b"{}", {"Inference_Header_Content_Length": "-1"}),
        (b"{}", {"Inference_Header_Content_Length": "9" * 5000}),
        (b"{}", {"Inference_Header_Content_Length": "3"}),
        (
            b"[" + b"[]," * (3 * 2**20) + b"[]]",
            {},
        ),  # of 8 MiB of JSON, Python would make a gigabyte
        (b"\xff\xfe", {}),
    ]:
        status, _, answer = post(page, f"{MODEL}/infer", body, **headers)
        assert status == 400
        assert len(json.loads(answer)["error"]) < 300
    assert post(page, "/v2/models/other/infer", b"{}")[0] == 404
    assert post(page, f"{MODEL}/versions/2/infer", b"{}")[0] == 404
    for status, _, answer in (get(page, "/v2/nothing"), get(page, f"{MODEL}/infer")):
        assert status in {404, 405}
        assert [*json.loads(answer)] == ["error"]
    tensor = {"name": "pictures", "datatype": "BYTES", "shape": [1]}
    for rest in (b"\x01", b"\xff\xff\xff\xff", struct.pack("<I", 0) * 100):
        size = {"parameters": {"binary_data_size": len(rest)}}
        assert ask(page, {"inputs": [tensor | size]}, rest)[0] == 400


def test_the_token_guards_all_but_health(engine: Path) -> None:
    with serving(engine, {"door": "test://?fps=5"}, token=TOKEN) as server:
        assert get(server, "/v2/health/ready")[0] == 200
        assert get(server, MODEL)[0] == 401
        refused = [post(server, f"{MODEL}/infer", b"{}"), get(server, "/v2"), get(server, "/v2/no")]
        assert [status for status, *_ in refused] == [401] * 3
        for _, _, answer in refused:  # clients of the protocol look for `error`
            assert "Authorization: Bearer" in json.loads(answer)["error"]
        assert "Bearer" in json.loads(get(server, "/api/state")[2])["detail"]
        assert get(server, MODEL, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_several_pictures_come_in_one_form_and_one_that_is_none_spoils_no_other(
    page: LiveServer,
) -> None:
    parts = [("a.png", png(RED)), ("b.txt", b"no picture"), ("c.png", png(RED[:5]))]
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="p"; filename="%s"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in parts
    )
    form = {"Content_Type": "Multipart/Form-Data; boundary=x"}
    status, _, answer = post(page, "/api/recognize?scores=true", body + b"--x--\r\n", **form)
    assert status == 200, answer
    first, second, third = json.loads(answer)["pictures"]
    assert (first["name"], first["width"], first["labels"][0]["label"]) == ("a.png", 40, "red")
    assert "no picture" in second["error"]
    assert third["height"] == 5
    for broken in (b"", b"--x", b"--x\r\n\r\n", body, b"--x--\r\n", body * 12 + b"--x--\r\n"):
        status, _, answer = post(page, "/api/recognize", broken, **form)
        assert status == 422, answer
    assert post(page, "/api/recognize", b"x", Content_Type="multipart/form-data")[0] == 422


# Each call has headers of its own: the clients write into what they are given.
TRITON = """
import sys
import numpy as np
import tritonclient.http as triton
client = triton.InferenceServerClient(sys.argv[1])
headers = {"Authorization": "Bearer " + sys.argv[2]}
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("mean colour", headers=dict(headers))
told = client.get_model_metadata("mean colour", headers=dict(headers))
assert told["inputs"][1]["datatype"] == "UINT8", told
frames = np.stack([np.load(sys.argv[3])] * 2)
for binary in (True, False):
    tensor = triton.InferInput("frames", frames.shape, "UINT8")
    tensor.set_data_from_numpy(frames, binary_data=binary)
    found = client.infer("mean colour", [tensor], headers=dict(headers))
    picture = triton.InferInput("pictures", [1], "BYTES")
    picture.set_data_from_numpy(np.array([open(sys.argv[4], "rb").read()], object))
    wanted = [triton.InferRequestedOutput(n, binary_data=binary) for n in ("scores", "labels")]
    same = client.infer("mean colour", [picture], outputs=wanted, headers=dict(headers))
    assert np.allclose(found.as_numpy("scores")[0], same.as_numpy("scores")[0])
    print(found.as_numpy("scores")[1].tolist(), same.as_numpy("labels").tolist())
try:
    client.infer("mean colour", [triton.InferInput("heat", [1], "BYTES")], headers=dict(headers))
except triton.InferenceServerException as error:
    print(error)
"""
KSERVE = """
import asyncio, sys
import numpy as np
from kserve import InferInput, InferRequest, InferenceRESTClient, RESTConfig
async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    url, headers = "http://" + sys.argv[1], {"Authorization": "Bearer " + sys.argv[2]}
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "mean colour", headers=dict(headers))
    frames = np.load(sys.argv[3])[None]
    for binary in (True, False):
        tensor = InferInput("frames", [*frames.shape], "UINT8")
        tensor.set_data_from_numpy(frames, binary_data=binary)
        request = InferRequest("mean colour", [tensor])
        found = await client.infer(url, request, model_name="mean colour", headers=dict(headers))
        outputs = {item.name: item.as_numpy() for item in found.outputs}
        print(outputs["scores"][0].tolist(), outputs["labels"].tolist())
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("package", "code"), [("tritonclient", TRITON), ("kserve", KSERVE)])
def test_a_client_of_others_gets_our_scores(
    engine: Path, tmp_path: Path, package: str, code: str
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install --group clients")
    np.save(tmp_path / "red.npy", RED)
    (tmp_path / "red.png").write_bytes(png(RED))
    with serving(engine, {"door": "test://?fps=5"}, token=TOKEN) as server:
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-c", code, f"127.0.0.1:{server.port}"),
                *(TOKEN, tmp_path / "red.npy", tmp_path / "red.png"),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    with Recognizer.from_engine(engine) as recognizer:
        expected = recognizer(RED, color="rgb").scores.tolist()
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    for line in lines[:2]:
        scores, labels = line.split("] [")
        assert np.allclose(json.loads(f"{scores}]"), expected)
        assert "red" in labels
    if package == "tritonclient":
        assert "expected pictures" in lines[2]
