"""Each example runs as it stands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.cmlr_edge.sinks.broker import Broker
from tests.examples.notebooks import EXAMPLES, cells_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def run(name: str, *arguments: str, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_photo(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.jpg"), np.full((120, 160, 3), 90, np.uint8))
    assert "not said: " in run("photo.py", "grey.jpg", folder=tmp_path)


@pytest.mark.parametrize("name", ["photo.py", "own_model.py", "camera_to_mqtt.py"])
def test_without_its_arguments_an_example_says_how_it_is_run(name: str) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"`python examples/{name} " in done.stderr
    assert "Traceback" not in done.stderr


def test_own_model(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="adopting needs onnx")
    from onnx import TensorProto, helper, numpy_helper, save

    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("GlobalAveragePool", ["x"], ["means"]),
        node("Flatten", ["means"], ["rows"]),
        node("Mul", ["rows", "four"], ["logits"]),
        node("Softmax", ["logits"], ["shares"]),
    ]
    inputs = [value("x", TensorProto.FLOAT, [1, 3, 32, 32])]
    outputs = [value("shares", TensorProto.FLOAT, [1, 3])]
    four = numpy_helper.from_array(np.float32(4), "four")
    graph = helper.make_graph(nodes, "colours", inputs, outputs, [four])
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "photos").mkdir()
    for name, colour in {"a": (0, 0, 255), "b": (255, 0, 0)}.items():  # BGR
        picture = np.full((48, 64, 3), colour, np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), picture)
    said = run("own_model.py", "model.onnx", "labels.txt", "photos", folder=tmp_path)
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["a.png:", "red"],
        ["b.png:", "blue"],
    ]
    assert (tmp_path / "own_model.png").stat().st_size > 1000


def test_fastapi_service() -> None:
    pytest.importorskip("httpx", reason="FastAPI's client needs httpx")
    from fastapi.testclient import TestClient

    from examples.fastapi_service import app

    picture = cv2.imencode(".png", np.full((120, 160, 3), 90, np.uint8))[1].tobytes()
    with TestClient(app) as client:
        answer = client.post("/labels", content=picture)
        assert answer.status_code == 200
        scores, labels = answer.json()["scores"], answer.json()["labels"]
        assert len(scores) == 80
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        assert "person" in scores
        assert all(scores[item["label"]] == item["score"] for item in labels)
        for nothing in (b"no picture", b""):
            assert client.post("/labels", content=nothing).status_code == 415


def test_camera_to_mqtt(tmp_path: Path) -> None:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed, so MQTT IS NOT TESTED: apt install mosquitto")
    broker = Broker(tmp_path)
    broker.start()
    wait_until(broker.listens)
    writer = cv2.VideoWriter(
        str(tmp_path / "door.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48)
    )
    for _ in range(10):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    try:
        uri = f"mqtt://127.0.0.1:{broker.port}/door"
        run("camera_to_mqtt.py", "door.mp4", uri, folder=tmp_path)
        assert "door/run" in broker.retained("door/#")
    finally:
        broker.stop()


def test_the_first_notebook_labels_a_picture_and_a_film(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(EXAMPLES)  # where Jupyter starts it: nothing needs to be put there first
    exec(cells_of("first_labels.ipynb"), {})  # noqa: S102
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "frames: 20"
    assert len([line for line in said if " said " in line or " below " in line]) == 5
    assert said[0].startswith("person: ")
