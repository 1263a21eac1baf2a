"""`explain` in every command: lines, events, snapshots' sidecars and the overlay say why, less what is masked."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge import Explain, IntakeSettings, Recognizer
from cmlr_edge.capture import open_source
from cmlr_edge.cli.flags import Flags
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.events.reasons import VisitReasons
from cmlr_edge.pipeline import Streams, StreamsSettings
from cmlr_edge.prediction import Prediction
from cmlr_edge.session.config import load_config
from cmlr_edge.session.session import Session
from cmlr_edge.sinks.drawing import draw_heat, label_color
from tests.cmlr_edge.session.front_ends import FRONT_ENDS, command_of
from tests.conftest import solid, write_video
from tests.explained_engine import write_explained_engine


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    return write_explained_engine(tmp_path / "explained")


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines there are."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if "\n" in line]


def half_red() -> NDArray[np.uint8]:
    """Red on the right, dark on the left."""
    image = solid(20, 20, 20, (48, 64))
    image[:, 32:] = (60, 60, 255)
    return image


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_command_says_why_in_all_outputs(
    explained: Path, tmp_path: Path, front_end: str
) -> None:
    write_video(tmp_path / "c.mp4", [half_red()] * 20)
    out, events, shots = tmp_path / "o.jsonl", tmp_path / "e.jsonl", tmp_path / "s"
    more = ["--explain", "--explain-margin", "9", "--mask", "0.75,0 1,0 1,1 0.75,1"]
    more += ["--out", str(out), "--events", str(events), "--snapshots", str(shots)]
    more += ["--threshold", "0.2", "--overlay", str(tmp_path / "v.mp4")]
    command = command_of(front_end, [f"door={tmp_path / 'c.mp4'}"], explained, tmp_path, *more)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline_s = time.monotonic() + 60
        while not [e for e in lines(events) if e["kind"] == "end"]:
            assert time.monotonic() < deadline_s
            assert process.poll() in {None, 0}, process.stderr and process.stderr.read()
            time.sleep(0.05)
        process.terminate()
    why = lines(out)[0]["why"]["red"]
    total = why["own"] + why["surroundings"] + why["bias"] + sum(why["others"].values())
    assert total == pytest.approx(why["logit"], abs=1e-3)
    found = np.array(why["map"])
    assert not found[:, 3].any()  # masked, and red
    assert found[:, 2].min() > found[:, 0].max()
    told = {event["kind"]: event for event in lines(events) if event.get("label") == "red"}
    assert told["start"]["why"]["map_box"] == [0, 0, 1, 1]
    assert told["end"]["why"]["score"] >= told["start"]["why"]["score"]
    [sidecar] = shots.glob("door/red_*.json")
    assert sidecar.with_suffix(".jpg").exists()
    assert json.loads(sidecar.read_text())["label"] == "red"
    if front_end != "serve":  # which a signal may end before the film is whole
        assert (tmp_path / "v.mp4").stat().st_size > 0


def test_a_file_says_it_too_and_nothing_is_said_that_was_not_asked_for(
    explained: Path, tmp_path: Path
) -> None:
    write_video(tmp_path / "c.mp4", [half_red()] * 3)
    for explain in ("explain = true", "explain = true\nexplain_margin = -1.5", ""):
        text = (
            f'{explain}\n[engine]\npath = "{explained}"\n[[sources]]\nname = "a"\nuri = "c.mp4"\n'
        )
        (tmp_path / "c.toml").write_text(text)
        config = load_config(tmp_path / "c.toml")
        with Session(config, folder=tmp_path) as session:
            session.streams.start()
            results = list(session.streams.results())
        assert all((r.prediction.why is not None) is bool(explain) for r in results)
        if "-1.5" in explain:
            assert results[0].prediction.why
            assert results[0].prediction.why.settings == Explain(-1.5)


def test_what_could_not_be_meant_is_refused_in_one_line(
    engine: Path, explained: Path, tmp_path: Path
) -> None:
    def flags(**given: Any) -> Any:
        return Flags(engine=explained, **given).to_config(["test://"], append=False)[0]

    assert flags(explain=True, explain_margin=-2.0).explanation == Explain(-2)
    assert flags().explanation is None
    with pytest.raises(SpecError, match="nothing is explained"):
        flags(explain_margin=1.0)
    with pytest.raises(SpecError, match="margin"):
        flags(explain=True, explain_margin=float("nan"))
    (tmp_path / "c.toml").write_text(
        f'explain = true\nexplain_margin = 1e9\n[engine]\npath = "{explained}"\n'
        '[[sources]]\nname = "a"\nuri = "test://"\n'
    )
    with pytest.raises(SpecError, match=r"c\.toml, line 2: .*margin"):
        load_config(tmp_path / "c.toml")
    config = replace(flags(explain=True), engine=replace(flags().engine, path=str(engine)))
    with pytest.raises(EngineError, match="cannot say why"), Session(config):
        pass


def test_maps_lie_in_the_region_and_hide_what_is_outside_it(
    explained: Path, tmp_path: Path
) -> None:
    write_video(tmp_path / "c.mp4", [half_red()] * 2)
    triangle = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0))
    intake = IntakeSettings(region=triangle)
    settings = StreamsSettings(explain=Explain())
    with Recognizer.from_engine(explained) as recognizer, Streams(recognizer, settings) as streams:
        streams.add(open_source(tmp_path / "c.mp4"), name="a", intake=intake)
        why = next(iter(streams.results())).prediction.why
    assert why is not None
    red = why["red"]
    assert red.map_box == (0.5, 0.0, 1.0, 1.0)
    assert red.map is not None
    assert red.map[1, 0] == 0  # below the diagonal
    assert red.map[0, 3] > 0


def explained_prediction(recognizer: Recognizer, red: int) -> Prediction:
    return recognizer(solid(red, 40, 40), explain=True)


def test_a_visit_tells_its_beginning_and_its_best_moment(explained: Path) -> None:
    def event(kind: Any) -> Event:
        return Event(kind, "1", "door", "red", 0, 0, None, 0.5, 0.5, 0)

    with Recognizer.from_engine(explained) as recognizer:
        first, best, last = (explained_prediction(recognizer, red) for red in (120, 250, 90))
        reasons = VisitReasons()
        [start] = reasons.explain([event("start")], first)
        assert reasons.explain([], best) == []
        assert reasons.explain([], replace(best, valid=False, why=None)) == []
        [update] = reasons.explain([event("update")], last)
        [end] = reasons.explain([event("end")], last)
        plain = replace(first, why=None)
        assert reasons.explain([event("start")], plain) == [event("start")]
    for told, prediction in ((start, first), (update, best), (end, best)):
        assert told.why is not None
        assert told.why["score"] == pytest.approx(float(prediction.scores[0]), abs=1e-5)
    assert "why" in end.to_record()
    assert "why" not in event("start").to_record()


def test_the_heat_lies_where_the_map_does(explained: Path) -> None:
    with Recognizer.from_engine(explained) as recognizer:
        image = half_red()
        why = recognizer(image, explain=True).why
    assert why is not None
    drawn = image.copy()
    draw_heat(drawn, why["red"])
    towards = np.abs(drawn - np.array(label_color("red"), float)).sum(-1)
    assert (
        towards[:, 40:].mean()
        < np.abs(image - np.array(label_color("red"), float)).sum(-1)[:, 40:].mean()
    )
    assert (drawn[:, :20] <= image[:, :20]).all()
    small = image.copy()
    draw_heat(small, why.placed((0.999, 0.999, 1, 1), None)["red"])
    assert (small[:-1] == image[:-1]).all()
    draw_heat(image[:1, :1], why["red"])  # a picture of one pixel
    everything = np.ones((2, 4), bool)
    untouched = half_red()
    draw_heat(untouched, why.placed((0, 0, 1, 1), everything)["red"])
    assert (untouched == half_red()).all()


def test_of_tiles_the_one_that_says_it_tells_why_and_where(explained: Path, tmp_path: Path) -> None:
    image = solid(20, 20, 20, (96, 128))
    image[60:92, 80:124] = (40, 40, 255)  # red, in the lower right of 2 x 2 tiles
    write_video(tmp_path / "c.mp4", [image] * 2)
    intake = IntakeSettings(tiles="2x2", masks=(((0.9, 0), (1, 0), (1, 1), (0.9, 1)),))
    settings = StreamsSettings(explain=Explain())
    with Recognizer.from_engine(explained) as recognizer, Streams(recognizer, settings) as streams:
        streams.add(open_source(tmp_path / "c.mp4"), name="a", intake=intake)
        prediction = next(iter(streams.results())).prediction
    assert prediction.why is not None
    red = prediction.why["red"]
    assert red.score == pytest.approx(float(prediction.scores[0]))
    logit = float(np.log(red.score / (1 - red.score)))
    assert red.logit == pytest.approx(logit, abs=1e-5)
    left, top, right, bottom = red.map_box
    assert (left, top) == pytest.approx((4 / 9, 4 / 9), abs=0.01)
    assert (right, bottom) == pytest.approx((1, 1), abs=0.01)
    assert red.map is not None
    assert not red.map[:, 3].any()  # masked
    assert red.map[1, 2] > red.map[0, 0]
    assert prediction.why.judged_by([0.0] * 3)["red"].score == red.score
