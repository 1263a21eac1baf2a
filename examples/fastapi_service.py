"""A service that labels pictures sent by POST: `python examples/fastapi_service.py`.

Needs `pip install '.[cpu,serve]'`. `cmlr-edge serve` has the same at `/api/recognize`, with limits and a token.

    curl --data-binary @street.jpg http://127.0.0.1:8000/labels
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from cmlr_edge import Recognizer, demo_engine


@asynccontextmanager
async def _lifespan(service: FastAPI) -> AsyncIterator[None]:
    with Recognizer.from_engine(demo_engine()) as recognizer:
        service.state.recognizer = recognizer
        yield


app = FastAPI(title="Labels of a picture", lifespan=_lifespan)


@app.post("/labels")
async def labels(request: Request) -> dict[str, Any]:
    """Name what is on the JPEG, PNG or WebP in the body; and the score of every label, most probable first."""
    body = np.frombuffer(await request.body(), np.uint8)
    image = cv2.imdecode(body, cv2.IMREAD_COLOR) if body.size else None
    if image is None:
        raise HTTPException(415, "the body is not a picture")
    recognizer = request.app.state.recognizer
    prediction = await run_in_threadpool(recognizer, image)
    answer: dict[str, Any] = prediction.to_dict()
    by_name = zip(recognizer.labels, answer["scores"], strict=True)
    answer["scores"] = dict(sorted(by_name, key=lambda item: -(item[1] or 0)))
    return answer


if __name__ == "__main__":
    uvicorn.run(app)
