"""What a Python programmer expects: results as JSON, helpful reprs, own errors, `async for`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cmlr_edge
from cmlr_edge import CaptureError, FrameError, Recognizer, SpecError, Streams, open_source, sinks
from tests.conftest import Image, solid


def test_a_prediction_becomes_json_in_one_call(engine: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        prediction = recognizer(solid(255, 0, 0))
    said = json.loads(prediction.to_json())
    assert said == prediction.to_dict()
    assert said["labels"][0] == {"label": "red", "score": 1.0}
    assert said["scores"] == [1.0, 0.0, 0.0]
    assert "scores" not in prediction.to_dict(scores=False)
    prediction.scores[1] = np.nan
    assert json.loads(prediction.to_json())["scores"] == [1.0, None, 0.0]


def test_a_web_framework_returns_it(engine: Path) -> None:
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    app = fastapi.FastAPI()
    with Recognizer.from_engine(engine) as recognizer:

        def look() -> dict[str, Any]:
            return recognizer(solid(0, 255, 0)).to_dict()

        app.get("/")(look)
        answer = testclient.TestClient(app).get("/")
    assert answer.json()["labels"] == [{"label": "green", "score": 1.0}]


def test_reprs_tell_what_a_thing_is(engine: Path, clip: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer, open_source(clip) as source:
        frame = next(iter(source))
        assert "3 labels" in repr(recognizer)
        assert repr(recognizer(frame)).startswith("<Prediction: ")
        assert repr(frame).endswith(f"{frame.image_bgr.shape[1]} x {frame.image_bgr.shape[0]}, ok>")
        assert repr(source) == f"<VideoFile {clip}>"
        streams = Streams(recognizer)
        streams.add("test://", name="door")
        assert repr(streams) == "<Streams of door>"
        streams.close()


def test_a_generator_of_images_is_a_batch_and_no_image_is_our_error(engine: Path) -> None:
    def images() -> Iterator[Image]:
        yield solid(255, 0, 0)
        yield solid(0, 0, 255)

    with Recognizer.from_engine(engine) as recognizer:
        best = [item.labels[0].label for item in recognizer.recognize_batch(images())]
        assert best == ["red", "blue"]
        with pytest.raises(FrameError, match="pass a list"):
            recognizer.recognize_batch(3)  # type: ignore[arg-type]
        with pytest.raises(FrameError, match="open_source"):
            recognizer("photo.jpg")  # type: ignore[arg-type]


def test_misuse_of_streams_is_our_error(engine: Path, clip: Path) -> None:
    with pytest.raises(SpecError, match="NoneType"):
        Streams([None])  # type: ignore[list-item]
    with Recognizer.from_engine(engine) as recognizer, Streams(recognizer) as streams:
        with pytest.raises(SpecError, match="max_frames"):
            streams.add("test://", max_frames=-1)
        with pytest.raises(CaptureError, match="there is no"):
            streams.add("nowhere.mp4")
        source = open_source(clip)
        streams.add(source, name="first")
        with pytest.raises(CaptureError, match="open it once more"):
            streams.add(source, name="second")


def test_every_error_and_output_is_public() -> None:
    errors = [name for name in cmlr_edge.__all__ if name.endswith("Error")]
    assert {"CaptureError", "EngineError", "FrameError", "OutputError", "SpecError"} < {*errors}
    assert all(hasattr(getattr(sinks, name), "write") for name in sinks.__all__ if name != "Result")
    with pytest.raises(AttributeError):
        sinks.Nothing  # noqa: B018


def test_async_for_gives_every_result_and_lets_others_run(engine: Path, clip: Path) -> None:
    async def run(recognizer: Recognizer) -> tuple[int, int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        beside = asyncio.create_task(other())
        frames = [result.frame.index async for result in recognizer.astream(clip)]
        beside.cancel()
        return len(frames), turns

    with Recognizer.from_engine(engine) as recognizer:
        frames, turns = asyncio.run(run(recognizer))
        assert frames == len(list(recognizer.stream(clip)))
    assert turns > 1


@pytest.mark.parametrize("how", ["break", "cancel"])
def test_an_async_stream_that_is_left_closes_its_source(engine: Path, how: str) -> None:
    async def leave(recognizer: Recognizer) -> None:
        stream = recognizer.astream("test://?fps=5")
        async for _ in stream:
            if how == "break":
                break
        await stream.aclose()

    async def run(recognizer: Recognizer) -> None:
        task = asyncio.create_task(leave(recognizer))
        if how == "cancel":
            await asyncio.sleep(0.5)
            task.cancel()
        await asyncio.wait([task], timeout=20)
        assert task.done()

    before = {*threading.enumerate()}  # other tests may have left some behind
    with Recognizer.from_engine(engine) as recognizer:
        began_s = time.monotonic()
        asyncio.run(run(recognizer))
    assert time.monotonic() - began_s < 10
    names = {thread.name.split()[0] for thread in {*threading.enumerate()} - before}
    assert not {"take", "hand", "supervise"} & names


def test_one_recognizer_in_many_threads_mixes_nothing_up(engine: Path) -> None:
    shades = [solid(i, 255 - i, 0) for i in range(0, 256, 5)]
    with Recognizer.from_engine(engine) as recognizer, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: recognizer(image).scores[0], shades * 4))
    np.testing.assert_allclose(found, [i / 255 for i in range(0, 256, 5)] * 4, atol=1e-5)
