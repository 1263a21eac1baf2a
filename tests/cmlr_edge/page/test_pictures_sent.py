"""Pictures over HTTP: recognised as files are, with the token, and with bounds for those who send too much."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from cmlr_edge import Explain, Recognizer
from cmlr_edge.capture.images import read_image
from cmlr_edge.page import looking
from cmlr_edge.page.running import LiveServer
from tests.cmlr_edge.page.live_page import get_json, serving
from tests.explained_engine import write_explained_engine

TOKEN = "a-token-of-some-length"


@pytest.fixture
def page(engine: Path) -> Iterator[LiveServer]:
    with serving(engine, {"door": "test://?fps=5&size=128x96"}, token=TOKEN) as server:
        yield server


def send(
    server: LiveServer, body: bytes, query: str = "", token: str | None = TOKEN, **headers: str
) -> tuple[int, dict[str, Any]]:
    given = {"Content-Type": "image/jpeg", **headers}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("POST", f"/api/recognize{query}", body, given)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def encoded(kind: str, size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    out = io.BytesIO()
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, :, 0] = 250
    PilImage.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def black(size: tuple[int, int]) -> bytes:
    """A PNG of one bit a pixel, which takes little time to make."""
    out = io.BytesIO()
    PilImage.new("1", size).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_picture_is_recognised_as_its_file_is(
    page: LiveServer, engine: Path, tmp_path: Path, kind: str
) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = 6
    options: dict[str, Any] = {} if kind == "BMP" else {"exif": exif}
    (tmp_path / "x.png").write_bytes(encoded(kind, **options))
    image = read_image(tmp_path / "x.png")
    with Recognizer.from_engine(engine) as recognizer:
        expected = recognizer(image).to_dict()
    status, said = send(page, (tmp_path / "x.png").read_bytes(), "?scores=true")
    assert status == 200
    assert (said["height"], said["width"]) == image.shape[:2]
    assert said["scores"] == expected["scores"]
    assert said["labels"] == expected["labels"]
    assert "scores" not in send(page, encoded(kind))[1]


def test_it_needs_the_token(page: LiveServer) -> None:
    assert send(page, encoded("JPEG"), token=None)[0] == 401
    assert send(page, encoded("JPEG"), token="another-token-of-it")[0] == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"no picture", 422),
        (encoded("PNG")[:60], 422),
        (black((12_000, 12_000)), 422),  # small to send, large to decode
        (b"x" * (33 * 2**20), 413),
    ],
)
def test_what_is_no_picture_is_refused_and_the_server_goes_on(
    page: LiveServer, body: bytes, status: int
) -> None:
    try:
        assert send(page, body)[0] == status
    except ConnectionError:  # it hangs up while we are still sending
        assert status == 413
    assert send(page, encoded("JPEG"))[0] == 200
    assert get_json(page, "/healthz")["sources"] == 1


def test_many_at_once_are_answered_or_sent_away(
    page: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_WAIT_S", 0.05)
    body = encoded("PNG", (3000, 3000))
    with ThreadPoolExecutor(24) as pool:
        statuses = [*pool.map(lambda _: send(page, body)[0], range(48))]
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
    assert send(page, body)[0] == 200


def test_the_former_model_may_be_closed_meanwhile(engine: Path) -> None:
    with Recognizer.from_engine(engine) as other:
        desk = looking.PictureDesk(Recognizer.from_engine(engine))
        former = desk._recognizer
        former.close()

        def swapped(pixels: Any, **_: Any) -> Any:
            desk.use(other)
            return former(pixels, color="rgb")

        desk._recognizer = swapped  # type: ignore[assignment]
        expected = other(np.asarray(PilImage.open(io.BytesIO(encoded("JPEG")))), color="rgb")
        assert desk.look(encoded("JPEG"), scores=True)["scores"] == expected.to_dict()["scores"]


def test_a_visitor_may_ask_why(tmp_path: Path, page: LiveServer) -> None:
    pixels, out = np.zeros((40, 60, 3), np.uint8), io.BytesIO()
    pixels[:20, :, 0], pixels[..., 1] = 250, 120
    PilImage.fromarray(pixels).save(out, "PNG")
    picture = out.getvalue()
    with serving(write_explained_engine(tmp_path / "explained"), {}, token=TOKEN) as server:
        assert "why" not in send(server, picture)[1]
        status, answer = send(server, picture, "?why=true")
        assert status == 200
        assert [*answer["why"]] == [item["label"] for item in answer["labels"]] == ["red"]
        assert answer["why"]["red"]["map"][0][0] > answer["why"]["red"]["map"][1][0]
    with serving(
        write_explained_engine(tmp_path / "other"), {}, token=TOKEN, explain=Explain()
    ) as server:
        assert "why" in send(server, picture)[1]
        assert "why" not in send(server, picture, "?why=false")[1]
    status, answer = send(page, picture, "?why=true")
    assert (status, "cannot say why" in answer["detail"]) == (409, True)
    assert send(page, picture)[0] == 200
