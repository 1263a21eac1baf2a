"""Archives in S3, for real: a server on loopback that is read from, written to, and away for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmlr_edge import Recognizer
from cmlr_edge.archive.plan import Cutting, Unit
from cmlr_edge.archive.run import Archive, ArchiveSettings
from cmlr_edge.archive.show import draw_sheet
from tests.cmlr_edge.archive.archives import label_here, rows_of, write_pictures
from tests.cmlr_edge.capture.films import write_film
from tests.conftest import free_port, solid

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of the server's and the client's own
]

_PICTURES, _FRAMES = 24, 20


class Storage:
    """S3 on loopback; what it holds outlives its being away."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self._server = moto.ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    storage = Storage()
    monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield storage
    storage.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_storage_that_is_away_for_a_while_costs_no_row(
    storage: Storage, tmp_path: Path, engine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "in"
    write_pictures(source, _PICTURES)
    (source / "bad.jpg").write_text("bad")
    frames = [solid(5 * i, 250 - 5 * i, 100, (48, 64)) for i in range(_FRAMES)]
    write_film(source / "film.mp4", frames, options={"x264-params": "keyint=5:scenecut=0"})
    fs = s3fs.S3FileSystem()
    fs.put(str(source), "bucket/in", recursive=True)
    cutting = Cutting(6)
    out = "s3://bucket/labels"
    away: list[threading.Thread] = []

    def come_back() -> None:
        deadline_s = time.monotonic() + 20
        while "tried again" not in caplog.text and time.monotonic() < deadline_s:
            time.sleep(0.05)
        storage.start()

    def go_away(_unit: Unit, _counts: object) -> None:
        if not away:
            storage.stop()
            away.append(threading.Thread(target=come_back))
            away[0].start()

    settings = ArchiveSettings(("s3://bucket/in",), out, engine, "cpu", cutting=cutting, workers=1)
    with Archive(settings) as archive:
        summary = archive.run(go_away)
    away[0].join()
    assert "tried again" in caplog.text  # somebody did miss it
    assert (summary.units_left, summary.undone, summary.total.failures) == (
        0,
        [],
        {"no picture": 1},
    )
    fs.invalidate_cache()
    fs.get("bucket/labels", str(tmp_path / "got"), recursive=True)
    rows = rows_of(tmp_path / "got")
    with Recognizer.from_engine(engine) as recognizer:
        label_here(recognizer, [source], tmp_path / "here", cutting)
    expected = rows_of(tmp_path / "here")
    names = [(Path(row["path"]).name, row["frame"]) for row in rows]
    assert names == [(Path(row["path"]).name, row["frame"]) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row["path"].startswith("s3://bucket/in/")
        assert (row["labels"], row["scores"]) == (other["labels"], other["scores"])
    count, drawn = draw_sheet(out, "scores[1] >= 0", tmp_path / "sheet.png")
    assert (count, drawn) == (_PICTURES + _FRAMES, 12)
