"""`cmlr-edge place`: a place in words, as a picture and as JSON, from what a run kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmlr_edge.cli.app import app
from cmlr_edge.cli.usage import run_app
from cmlr_edge.errors import CmlrError, DataError, EngineError
from cmlr_edge.frame import Frame
from cmlr_edge.place import store
from cmlr_edge.place.settings import PlaceSettings
from cmlr_edge.place.watch import PlaceWatch
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.why import Reasons
from tests.conftest import solid
from tests.placed_engine import meaning, spec_of_places, write_placed_engine


def ask(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["cmlr-edge", "place", *words])
    try:
        run_app(app, "cmlr-edge")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def watch(folder: Path, source: str, context: tuple[float, float, float], blocks: int) -> None:
    """A run that saw one kind of surroundings for so many blocks and a little."""
    watched = PlaceWatch(
        source, PlaceSettings(block_s=10), folder, spec_of_places(), tell_why=False
    )
    for number in range(2 * blocks + 1):
        outputs = {"context": np.array(context, np.float32)}
        labels = ("red", "green", "blue")
        why = Reasons(labels, np.zeros(3, np.float32), outputs, meaning(), (0.5,) * 3)
        frame = Frame(solid(0, 0, 200, (90, 160)), number, 5.0 * number, 0.0, 0.0, source)
        watched.take(frame, Prediction(why.scores, (), Latency(), 0.0, why=why))
    watched.close()


@pytest.fixture
def places(tmp_path: Path) -> Path:
    folder = tmp_path / "places"
    watch(folder, "door", (0.1, 0.1, 0.8), 40)
    watch(folder, "back yard", (0.34, 0.33, 0.33), 3)
    return folder


def test_places_are_told_in_words(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, str(places)) == 1
    text = capsys.readouterr().out
    assert "door: unlike what training saw, since 20" in text
    assert "more of surroundings 2 (speaks for blue): 80%, in training 32%" in text
    assert "less of surroundings 0 (speaks for red): 10%, in training 36%" in text
    assert "back yard: too few blocks to say" in text
    assert "door.place-1.jpg" in text
    assert ask(monkeypatch, str(places), "--source", "back yard") == 0


def test_programs_get_the_same_as_json(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(monkeypatch, str(places), "--json") == 1
    records: dict[str, Any] = {item["source"]: item for item in json.loads(capsys.readouterr().out)}
    assert set(records) == {"door", "back yard"}
    door = records["door"]
    assert (door["blocks"], door["block_s"]) == (40, 10)
    assert door["distance"] == pytest.approx(0.48, abs=0.01)
    assert door["statistic"] > door["threshold"]
    assert all(Path(name).is_file() for name in door["pictures"])
    assert records["back yard"]["unlike_since"] is None


def test_a_picture_shows_bars_blocks_and_frames(
    places: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "door.png"
    store.picture_of(store.path_of(places, "door"), 2).write_bytes(b"\xff\xd8 cut off")
    ask(monkeypatch, str(places), "--source", "door", "--picture", str(out))
    image = cv2.imread(str(out))
    assert image is not None
    assert image.shape[1] == 960
    assert (np.abs(image.astype(int) - (200, 0, 0)).max(axis=2) < 30).any()  # the frames
    with pytest.raises(DataError, match="give --source"):
        ask(monkeypatch, str(places), "--picture", str(out))
    with pytest.raises(CmlrError, match="cannot write"):
        ask(monkeypatch, str(places), "--source", "door", "--picture", str(tmp_path / "no/x.png"))


def test_what_is_typed_wrong_or_damaged_is_a_line(
    places: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"no place of 'gate'.*\['back yard', 'door'\]"):
        ask(monkeypatch, str(places), "--source", "gate")
    with pytest.raises(DataError, match="--place"):
        ask(monkeypatch, str(places / "nowhere"))
    store.path_of(places, "door").write_text('{"source": [')
    assert ask(monkeypatch, str(places)) == 0
    shown = capsys.readouterr()
    assert "holds no place" in shown.err
    assert "back yard" in shown.out


def test_an_engine_tells_what_it_was_trained_in_and_the_bundled_that_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = write_placed_engine(tmp_path / "engine")
    assert ask(monkeypatch, "--engine", str(engine)) == 0
    assert "36% surroundings 0" in capsys.readouterr().out
    assert ask(monkeypatch, "--engine", str(engine.parent), "--json") == 0
    assert [item["confounder"] for item in json.loads(capsys.readouterr().out)] == [0, 1, 2]
    with pytest.raises(EngineError, match="without --explain; train with"):
        ask(monkeypatch)
