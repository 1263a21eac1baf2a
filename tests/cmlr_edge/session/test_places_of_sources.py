"""Places in `label`, `serve` and `run`: the same settings, what they write, tell, and refuse."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmlr_edge import Recognizer
from cmlr_edge.cli.flags import Flags
from cmlr_edge.errors import EngineError, OutputError, SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.frame import Frame
from cmlr_edge.machine.claim import IN_USE
from cmlr_edge.page.visits import VisitLog
from cmlr_edge.pipeline.outlet import Outlet, judge_by
from cmlr_edge.place import store
from cmlr_edge.place.histogram import MOST_BLOCKS
from cmlr_edge.place.settings import PlaceSettings
from cmlr_edge.place.watch import PlaceWatch
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.session.config import load_config
from cmlr_edge.session.runner import Runner
from cmlr_edge.session.session import Session
from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.home_assistant import HomeAssistant
from cmlr_edge.sinks.outputs import Outputs
from cmlr_edge.sinks.snapshots import Snapshots
from cmlr_edge.why import Reasons
from tests.conftest import solid, write_video
from tests.placed_engine import meaning, spec_of_places, write_placed_engine


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    return write_placed_engine(tmp_path / "engine")


def film_of_another_place(path: Path, *, right_is_red: bool = False) -> Path:
    """Forty seconds of blue at two frames a second."""
    image = solid(20, 20, 250, (48, 64))
    if right_is_red:
        image[:, 32:] = (20, 20, 250)
    return write_video(path, [image] * 80, fps=2)


def events_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(config: Any, folder: Path) -> Session:
    with Session(config, folder=folder) as session:
        Runner(session, until_over=True).run()
    return session


def test_flags_and_the_file_mean_the_same(tmp_path: Path, placed: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_text(
        'place = "places"\nplace_block_s = 20.0\nplace_false_alarms = 0.1\nplace_average = true\n'
        f'[engine]\npath = "{placed}"\n[[sources]]\nname = "a"\nuri = "test://"\n'
    )
    from_file = load_config(file)
    flags = Flags(
        place=tmp_path / "places", place_block=20, place_false_alarms=0.1, place_average=True
    )
    from_flags, _ = flags.to_config(["test://"], append=False)
    assert from_file.watched_place == from_flags.watched_place is not None
    assert from_flags.place == str(tmp_path / "places")
    file.write_text(file.read_text().replace('place = "places"\n', ""))
    with pytest.raises(SpecError, match=r"device\.toml, line \d+: .*say place"):
        load_config(file)
    with pytest.raises(SpecError, match="--place FOLDER"):
        Flags(place_average=True).to_config(["test://"], append=False)
    with pytest.raises(SpecError, match="expected seconds"):
        Flags(place=tmp_path, place_block=0).to_config(["test://"], append=False)


@pytest.mark.parametrize("command", ["label", "run"])
def test_a_run_tells_that_its_place_is_unlike_and_shows_it_less_what_is_masked(
    tmp_path: Path, placed: Path, command: str
) -> None:
    film = film_of_another_place(tmp_path / "film.avi", right_is_red=True)
    more = [
        "--place",
        str(tmp_path / "places"),
        "--place-block",
        "1",
        "--place-false-alarms",
        "0.5",
    ]
    more += ["--events", str(tmp_path / "events.jsonl"), "--mask", "0.5,0 1,0 1,1 0.5,1"]
    source = [f"door={film}", "--engine", str(placed)]
    if command == "run":
        config = tmp_path / "device.toml"
        config.write_text(
            f'[engine]\npath = "{placed}"\n[[sources]]\nname = "door"\nuri = "{film}"\n'
        )
        source = [str(config)]
    call = [sys.executable, "-m", "cmlr_edge", command, *source, *more]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    [told] = [event for event in events_of(tmp_path / "events.jsonl") if event["kind"] == "place"]
    assert told["place"]["unlike"]
    assert told["place"]["surroundings"][0]["speaks_for"].startswith("blue")
    assert not [e for e in events_of(tmp_path / "events.jsonl") if "why" in e]
    for name in told["place"]["pictures"]:
        pixels = cv2.imread(name)
        assert pixels is not None
        height, width = pixels.shape[:2]
        red = pixels[:, round(0.6 * width) :].reshape(-1, 3).mean(axis=0)[2]
        assert height * width > 0
        assert red < 150  # of 250: it is painted over
    assert "unlike what training saw" in done.stderr


def test_no_frame_from_before_a_mask_is_shown_after_it(tmp_path: Path) -> None:
    watched = PlaceWatch(
        "door", PlaceSettings(block_s=1), tmp_path, spec_of_places(), tell_why=False
    )
    rng = np.random.default_rng(0)

    def show(seconds: range, color: tuple[int, int, int]) -> None:
        for second in seconds:
            frame = Frame(solid(*color), second, float(second), 0.0, 0.0, "door")
            outputs = {"context": np.array([0.0, 0.1, 0.9], np.float32)}
            scores = rng.random(3, np.float32)
            why = Reasons(("r", "g", "b"), scores, outputs, meaning(), (0.5,) * 3)
            outlet.take(frame, Prediction(scores, (), Latency(), 0.0, why=why))

    with Recognizer.from_engine(write_placed_engine(tmp_path / "engine")) as recognizer:
        judging = judge_by(recognizer, None)
    outlet = Outlet("door", judging, [], Outputs(), lossless=True, watch=watched)
    show(range(30), (250, 0, 0))
    outlet.pause()  # as where masks change
    show(range(30, 45), (0, 0, 250))
    pictures = sorted(tmp_path.glob("door.place-*.jpg"))
    assert pictures
    for path in pictures:
        pixels = cv2.imread(str(path))
        assert pixels is not None
        assert pixels[..., 0].mean() > 200
        assert pixels[..., 2].mean() < 50


def test_status_metrics_and_the_file_agree(tmp_path: Path, placed: Path) -> None:
    from cmlr_edge.pipeline.metrics import PrometheusMetrics

    film = film_of_another_place(tmp_path / "film.avi")
    flags = Flags(engine=placed, place=tmp_path / "places", place_block=1)
    session = run(flags.to_config([f"door={film}"], append=False)[0], tmp_path)
    [status] = session.status()
    assert status.place is not None
    assert (status.place.blocks, status.place.unlike) == (39, True)
    kept = store.load(store.path_of(tmp_path / "places", "door"))
    assert kept.num_blocks == 39
    assert kept.unlike_since is not None
    text = PrometheusMetrics(session.status).render().decode()
    assert 'cmlr_place_unlike{source="door"} 1.0' in text
    assert f'cmlr_place_distance{{source="door"}} {status.place.distance}' in text
    without = run(Flags(engine=placed).to_config([f"door={film}"], append=False)[0], tmp_path)
    assert without.status()[0].place is None
    assert "cmlr_place_unlike{" not in PrometheusMetrics(without.status).render().decode()


def test_off_nothing_changes_and_averaging_changes_scores_and_labels(
    tmp_path: Path, placed: Path
) -> None:
    film = film_of_another_place(tmp_path / "film.avi")

    def scores(**given: Any) -> list[dict[str, Any]]:
        out = tmp_path / f"o{len(given)}.jsonl"
        flags = Flags(engine=placed, out=out, **given)
        run(flags.to_config([str(film)], append=False)[0], tmp_path)
        return events_of(out)

    def said(records: list[dict[str, Any]]) -> list[Any]:
        return [record["labels"] for record in records]

    off, watched = scores(), scores(place=tmp_path / "a")
    assert said(off) == said(watched)
    assert "why" not in watched[0]
    averaged = scores(place=tmp_path / "b", place_average=True, explain=True, place_block=1)
    assert said(averaged) != said(off)
    with Recognizer.from_engine(placed) as recognizer:
        threshold = recognizer.thresholds["blue"]
    for record in averaged:
        for item in record["labels"]:
            assert item["score"] >= threshold
            why = record["why"][item["label"]]
            total = why["own"] + why["surroundings"] + why["bias"] + sum(why["others"].values())
            assert total == pytest.approx(why["logit"], abs=1e-3)
    # The prior goes from training's to the place's: the same picture is judged otherwise.
    first, last = (averaged[i]["why"]["blue"]["score"] for i in (0, -1))
    assert last > first


def test_engines_that_do_not_tell_are_refused_in_one_line(tmp_path: Path) -> None:
    config, _ = Flags(place=tmp_path / "p").to_config(["test://"], append=False)
    with pytest.raises(EngineError, match="tells nothing of a place: it was exported without"):
        Session(config, folder=tmp_path).__enter__()
    older = write_placed_engine(tmp_path / "older", training=None)
    config, _ = Flags(place=tmp_path / "p", engine=older).to_config(["test://"], append=False)
    with pytest.raises(EngineError, match="before that was kept"):
        Session(config, folder=tmp_path).__enter__()


def test_a_reload_brings_no_engine_that_cannot_tell_what_the_run_began_with(
    tmp_path: Path, placed: Path
) -> None:
    film = film_of_another_place(tmp_path / "film.avi")
    config, _ = Flags(engine=placed, place=tmp_path / "p").to_config([str(film)], append=False)
    older = write_placed_engine(tmp_path / "older", training=None)
    with Session(config, folder=tmp_path) as session, ExitStack() as undo:
        fresh = undo.enter_context(Recognizer.from_engine(older))
        changed = replace(config, engine=replace(config.engine, path=str(older)), place="")
        with pytest.raises(EngineError, match="tells nothing of a place"):
            session.apply(changed, (fresh, ""), undo)
        assert session.in_force.place == config.place
        Runner(session, until_over=True).run()
    [kept] = (tmp_path / "p").glob("*.json")
    assert store.load(kept).open_frames > 0


@pytest.mark.parametrize("folder", ["engine/model.json", "nowhere/places"])
def test_folders_that_cannot_be_are_refused_before_anything_runs(
    tmp_path: Path, placed: Path, folder: str
) -> None:
    flags = Flags(place=tmp_path / folder, engine=placed)
    config, _ = flags.to_config(["test://"], append=False)
    with pytest.raises(OutputError, match="cannot keep places in"):
        Session(config, folder=tmp_path).__enter__()


def test_outputs_of_labels_are_not_troubled_by_an_event_of_a_place(tmp_path: Path) -> None:
    frame = Frame(solid(0, 0, 0, (40, 60)), 3, 2.0, 0.0, 0.0, "door")
    event = Event.of_place(frame, "door", "0" * 32, {"unlike": True, "distance": 0.3})
    record = event.to_record()
    assert (record["kind"], record["label"], record["score"]) == ("place", "", 0.3)
    assert "why" not in record
    result = Result(
        frame, Prediction(np.zeros(1, np.float32), (), Latency(), 0.0), (event,), "door"
    )
    shots = Snapshots(tmp_path / "shots", ("a",))
    shots.write(result)
    shots.close()
    assert [*(tmp_path / "shots").iterdir()] == []
    visits = VisitLog()
    visits.write(result)
    assert visits.newest(10) == []
    home = HomeAssistant("t", "homeassistant")
    assert not [topic for topic in home.take(event) if topic.startswith("t/door/")]


def test_two_sources_have_two_places_and_a_reload_keeps_them(tmp_path: Path, placed: Path) -> None:
    names = ["yard 1", "yard/1"]
    film = film_of_another_place(tmp_path / "film.avi")
    flags = Flags(engine=placed, place=tmp_path / "places", place_block=1)
    config, _ = flags.to_config([f"{name}={film}" for name in names[:1]], append=False)
    second = replace(config.sources[0], name=names[1])
    run(replace(config, sources=(*config.sources, second)), tmp_path)
    kept = [store.load(path) for path in (tmp_path / "places").glob("*.json")]
    assert sorted(item.source for item in kept) == names
    assert all(item.num_blocks <= MOST_BLOCKS for item in kept)


@pytest.mark.parametrize("flag", ["--place", "--collect"])
def test_a_second_program_in_a_folder_ends_at_the_start_and_names_the_first(
    tmp_path: Path, placed: Path, flag: str
) -> None:
    film, folder = film_of_another_place(tmp_path / "film.avi"), tmp_path / "kept"
    call = [sys.executable, "-m", "cmlr_edge", "label", f"door={film}", "--engine", str(placed)]
    call += [flag, str(folder)]
    folder.mkdir()
    with (folder / IN_USE).open("w") as lock:
        lock.write("process 7 on camera-2")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert "kept is in use by process 7 on camera-2: stop that one" in second.stderr
    assert "Traceback" not in second.stderr
    after = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert after.returncode == 0, (
        after.stderr
    )  # the file stays, as after a kill, and is in nobody's way
    assert not (folder / IN_USE).exists()


def test_an_engine_that_is_tried_is_averaged_over_the_place_too(
    tmp_path: Path, placed: Path
) -> None:
    """Else an update to the same engine would seem to decide otherwise."""
    film = film_of_another_place(tmp_path / "film.avi")
    flags = Flags(engine=placed, place=tmp_path / "places", place_average=True, place_block=1)
    config, _ = flags.to_config([f"door={film}"], append=False)
    with Session(config) as session:
        session.streams.start()
        session.streams.wait()
        last = session.streams.latest("door")
        assert last is not None
        tried = session.streams.look("door", session.recognizer, last.frame)
        alone = session.recognizer(last.frame.image_bgr)
    assert np.abs(last.prediction.scores - alone.scores).max() > 0.01
    np.testing.assert_allclose(tried.scores, last.prediction.scores, atol=5e-3)
    assert [item.label for item in tried.labels] == [item.label for item in last.prediction.labels]
    assert tried.why is None
