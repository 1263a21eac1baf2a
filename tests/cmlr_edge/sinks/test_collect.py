"""Frames are kept because the model contradicts itself; whole, once, masked, and never more than there is room for."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge.capture.images import read_image
from cmlr_edge.cli.flags import Flags
from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.events.doubts import Flicker, contradiction, doubts_of
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.session.config import EngineSettings, SessionConfig, SourceSettings, load_config
from cmlr_edge.session.run_outputs import RunOutputs
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.collect import Collect, CollectSettings
from cmlr_edge.sinks.collect_record import KeptName
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.jpeg_record import record_in, with_record
from cmlr_edge.sinks.kept_files import KeptFiles
from cmlr_edge.why import Reasons
from tests.cmlr_edge.session.front_ends import FRONT_ENDS, command_of
from tests.cmlr_edge.sinks.samples import frame
from tests.conftest import solid, write_video
from tests.explained_engine import write_explained_engine
from tests.waiting import wait_until

LABELS = ("red", "green", "blue")
LIMITS, ALL = np.full(3, 0.5, np.float32), np.ones(3, bool)
NEVER = CollectSettings(random_share=0.0)


def result(shade: int, scores: Sequence[float], time_s: float | None = 0.0, **more: Any) -> Result:
    """A frame of one shade, with scores of red, green and blue."""
    picture = replace(frame(0), image_bgr=solid(shade, shade, shade), time_s=time_s)
    said = Prediction(np.array(scores, np.float32), (), Latency(), 0.0)
    given: dict[str, Any] = {"source": "front door", "thresholds": LIMITS, "wanted": ALL} | more
    return Result(picture, said, (), **given)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.frame.jpg"))


def kinds(folder: Path) -> list[str]:
    return sorted(KeptName.of(path).kind for path in kept(folder))


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record_in(path.read_bytes()))
    return found


def test_what_is_nearly_there_is_kept_and_what_is_clear_is_not(tmp_path: Path) -> None:
    sink = Collect(tmp_path / "f", LABELS, NEVER)
    sink.write(result(10, [0.01, 0.99, 0.2]))
    assert kept(tmp_path / "f") == []
    sink.write(result(200, [0.01, 0.99, 0.55], 1.0))
    [path] = kept(tmp_path / "f")
    assert path.parent.name.startswith("front_door")
    assert KeptName.of(path)[:2] == ("blue", "near")
    said = record(path)
    assert said["scores"] == {"red": 0.01, "green": 0.99, "blue": 0.55}
    assert (said["kind"], said["label"], said["explained"]) == ("near", "blue", False)
    assert abs(int(read_image(path).mean()) - 200) <= 2


def test_a_label_that_comes_and_goes_is_kept_though_it_is_never_near(tmp_path: Path) -> None:
    sink = Collect(tmp_path / "f", LABELS, NEVER)
    for number in range(4):
        sink.write(result(40 * number, [0.01 if number % 2 else 0.99, 0, 0], number / 10))
    assert kinds(tmp_path / "f") == ["flicker"]
    flicker = Flicker(1)
    for number in range(10):  # once in a while is no flicker
        flicker.add(np.array([number % 2 == 0]), 20.0 * number)
    assert flicker.changes[0] < 2


def test_contradictions_are_those_of_the_engine_and_come_before_all_else(tmp_path: Path) -> None:
    engine = write_explained_engine(tmp_path / "e")
    with Recognizer.from_engine(engine) as recognizer:
        # Red alone says 8 * 0.29 - 4; the others add 1, and bright surroundings 1.3.
        dark = recognizer(solid(150, 20, 20), explain=True)
        bright = recognizer(solid(75, 255, 255), explain=True)
    assert bright.why is not None
    red = bright.why["red"]
    assert red.score > 0.5 > 1 / (1 + np.exp(red.surroundings - red.logit))
    [first, *others] = doubts_of(bright, LIMITS, ALL)
    assert (first.kind, LABELS[first.label]) in {("surroundings", "red"), ("links", "red")}
    assert {doubt.kind for doubt in (first, *others)} >= {"surroundings", "links"}
    assert first.worth > 0.5
    assert all(doubt.worth < 0.5 for doubt in doubts_of(dark, LIMITS, ALL))
    assert all(LABELS[d.label] != "red" for d in doubts_of(bright, LIMITS, np.array([0, 1, 1]) > 0))
    without = replace(bright, why=None)
    assert {d.kind for d in doubts_of(without, LIMITS, ALL)} <= {"near"}


def test_tiles_and_taught_labels_contradict_themselves_as_others_do() -> None:
    meaning = ExplanationSpec({}, (0.0, 0.0), links="scores", surroundings="own")

    def look(own: float, surroundings: float) -> Reasons:
        parts = np.array([own, -3.0], np.float32), np.array([surroundings, 0.0], np.float32)
        links = np.zeros((2, 2), np.float32)
        scores = 1 / (1 + np.exp(-np.array([*(parts[0] + parts[1]), -4.0])))  # the third was taught
        given = {"own_evidence": parts[0], "surroundings": parts[1], "links": links}
        return Reasons(LABELS, scores.astype(np.float32), given, meaning, LIMITS)

    whole = Reasons.together([look(-3.0, 1.0), look(-1.0, 2.0)])
    assert whole.otherwise()["surroundings"].round(3).tolist() == [-1.0, -3.0, -4.0]
    said = Prediction(whole.scores, (), Latency(), 0.0, why=whole)
    [doubt] = doubts_of(said, LIMITS, ALL)
    assert (doubt.kind, doubt.label, round(doubt.worth, 2)) == ("surroundings", 0, 0.75)


def test_a_contradiction_is_as_deep_as_its_shallow_side() -> None:
    reach, otherwise = np.array([2.0, -1.0, 3.0, 0.0]), np.array([-1.0, 4.0, 1.0, -2.0])
    assert contradiction(reach, otherwise).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_frames_come_seldom_and_show_something_new(tmp_path: Path) -> None:
    sink = Collect(tmp_path / "f", LABELS, NEVER)
    for number in range(50):  # ten a second: nearly the same picture, then others
        sink.write(result(100 + number // 25, [0.5, 0, 0], number / 10))
    assert len(kept(tmp_path / "f")) == 1
    sink.write(result(10, [0.5, 0, 0], 6.0))  # too soon
    sink.write(result(102, [0.5, 0, 0], 11.0))  # nothing new
    assert len(kept(tmp_path / "f")) == 1
    sink.write(result(10, [0.5, 0, 0], 12.0))
    sink.write(result(10, [0, 0.5, 0], 23.0))  # of another label, but the same frame
    assert len(kept(tmp_path / "f")) == 2


def test_a_random_share_is_kept_whatever_it_shows_and_again_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(160)]
    found = []
    for run in ("a", "b"):
        sink = Collect(tmp_path / run, LABELS, CollectSettings(random_share=0.25))
        for picture in pictures:
            said = result(0, [0.01, 0.99, 0.01], None)
            sink.write(replace(said, frame=replace(said.frame, image_bgr=picture)))
        assert {*kinds(tmp_path / run)} == {"random"}
        found.append([path.name for path in kept(tmp_path / run)])
    assert found[0] == found[1]
    assert 15 < len(found[0]) < 65  # 4.6 deviations around 40


def test_of_a_film_moments_are_drawn_and_not_frames(tmp_path: Path) -> None:
    sink = Collect(tmp_path / "f", LABELS, CollectSettings(random_share=1.0, every_s=2.0))
    for number in range(60):
        sink.write(result(4 * number, [0.01, 0.99, 0.01], number / 10))
    assert [record(path)["time_s"] for path in kept(tmp_path / "f")].count(2.0) == 1
    assert sorted(record(path)["time_s"] for path in kept(tmp_path / "f")) == [0.0, 2.0, 4.0]


def test_no_frame_is_kept_in_which_a_person_is_likely(tmp_path: Path) -> None:
    settings = CollectSettings(random_share=1.0, every_s=0.0, without=("green",))
    sink = Collect(tmp_path / "f", LABELS, settings)
    sink.write(result(10, [0.5, 0.6, 0]))  # said
    sink.write(result(30, [0.5, 0.3, 0], 1.0))  # not said, but more than half of its threshold
    sink.write(result(50, [0.5, 0.0, 0], 2.5))  # gone for a moment
    unwanted = np.array([True, False, True])  # may not be said of this source, and is seen
    sink.write(result(70, [0.5, 0.6, 0], 4.0, wanted=unwanted))
    assert kept(tmp_path / "f") == []
    sink.write(result(90, [0.5, 0.0, 0], 6.5))
    assert len(kept(tmp_path / "f")) == 1
    with pytest.raises(SpecError, match="gren"):
        Collect(tmp_path / "g", LABELS, replace(settings, without=("gren",)))


def test_frames_that_say_nothing_of_now_are_not_kept(tmp_path: Path) -> None:
    sink = Collect(tmp_path / "f", LABELS, CollectSettings(random_share=1.0))
    good = result(10, [0.5, 0, 0])
    sink.write(replace(good, prediction=replace(good.prediction, valid=False)))
    sink.write(replace(good, prediction=replace(good.prediction, repeated=True)))
    sink.write(replace(good, frame=replace(good.frame, status="frozen")))
    assert kept(tmp_path / "f") == []
    sink.write(good)
    assert len(kept(tmp_path / "f")) == 1


def test_the_fullest_label_makes_room_by_its_least_worthy_frame(tmp_path: Path) -> None:
    settings = replace(NEVER, most=4, every_s=0.0)
    sink = Collect(tmp_path / "f", LABELS, settings)
    sink.write(result(5, [0.5, 0, 0]))
    for number in range(1, 9):  # ever nearer to the threshold
        sink.write(result(25 * number, [0, 0.4 + number / 100, 0], float(number)))
    names = [KeptName.of(path) for path in kept(tmp_path / "f")]
    assert [name.label for name in names] == ["green"] * 3 + ["red"]
    times = sorted(record(path)["time_s"] for path in kept(tmp_path / "f"))
    assert times == [0.0, 6.0, 7.0, 8.0]
    sink = Collect(tmp_path / "f", LABELS, settings)  # as after a restart
    sink.write(result(15, [0, 0.4, 0]))  # worth less than all there are
    assert sorted(record(path)["time_s"] for path in kept(tmp_path / "f")) == times
    strangers = [
        tmp_path / "f" / "notes.txt",
        kept(tmp_path / "f")[0].with_name(f"x_{'0' * 32}.jpg"),
    ]
    for stranger in strangers:  # notes, and a snapshot
        stranger.write_bytes(b"x")
    sink = Collect(tmp_path / "f", LABELS, replace(settings, most=1))
    sink.write(result(16, [0, 0.5, 0]))
    assert len(kept(tmp_path / "f")) == 1
    assert all(stranger.exists() for stranger in strangers)


def test_a_folder_that_somebody_takes_away_is_made_again_and_has_room(tmp_path: Path) -> None:
    collect = Collect(tmp_path / "kept", LABELS, replace(NEVER, every_s=0.0, most=2))
    for number in range(2):
        collect.write(result(40 * number, [0.5, 0.1, 0.1], 20.0 * number))
    shutil.rmtree(tmp_path / "kept")
    collect.write(result(100, [0.39, 0.1, 0.1], 40.0))  # worth less than those that are gone
    assert len(kept(tmp_path / "kept")) == 1


def test_frames_that_are_taken_away_or_come_from_elsewhere_are_seen(tmp_path: Path) -> None:
    clock_s = [0.0]
    files = KeptFiles(
        tmp_path, (".frame.jpg",), keep_bytes=1e9, keep_days=None, most=2, clock=lambda: clock_s[0]
    )  # fmt: skip
    names = [tmp_path / "door" / f"red_near_00001_{i:032x}.frame.jpg" for i in range(5)]
    assert [files.keep(path, b"x") for path in names[:2]] == [True, True]
    for path in names[:2]:
        path.unlink()
    half = names[3].with_name(f".{names[3].name}.1.part")
    half.write_bytes(b"")  # another program is writing it
    names[2].write_bytes(b"x")  # and has written this one
    clock_s[0] += 601
    files.tend()
    assert files.keep(names[4], b"x")
    assert sorted(tmp_path.glob("*/*")) == [half, names[2], names[4]]


def test_a_disk_without_room_gets_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Collect(tmp_path / "f", LABELS, NEVER)
    sink.write(result(5, [0.55, 0, 0]))
    before = kept(tmp_path / "f")
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10**8))
    with pytest.raises(OutputError, match="200 MB"):
        sink.write(result(90, [0, 0.5, 0], 20.0))
    assert kept(tmp_path / "f") == before  # others filled it: what is worth a look stays
    guard = GuardedSink(sink)
    guard.write(result(90, [0, 0.5, 0], 40.0))
    guard.write(result(90, [0, 0.01, 0], 41.0))  # not to be kept, so it shows nothing of the disk
    guard.flush()
    assert (guard.status().state, guard.status().lost) == ("failing", 1)
    monkeypatch.undo()
    guard.write(result(90, [0, 0.5, 0], 60.0))  # as good as the one that was lost
    guard.flush()
    assert (guard.status().state, guard.status().lost) == ("ok", 1)
    assert len(kept(tmp_path / "f")) == 2


def test_a_record_of_any_size_comes_back_and_the_picture_stays_one(tmp_path: Path) -> None:
    sink = Collect(tmp_path / "f", LABELS, NEVER)
    sink.write(result(90, [0.5, 0, 0]))
    plain = kept(tmp_path / "f")[0].read_bytes()
    for size in (0, 10, 59_990, 200_000):
        long = {"text": "ä" * size}
        grown = with_record(plain[:2] + plain[2:], long)
        (tmp_path / "x.jpg").write_bytes(grown)
        assert abs(int(read_image(tmp_path / "x.jpg").mean()) - 90) <= 2
    alone = with_record(b"\xff\xd8\xff\xd9", {"a": "b" * 200_000})
    assert json.loads(record_in(alone)) == {"a": "b" * 200_000}
    for cut in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xfe\x00", alone[:70_000], b"\x89PNG" * 9):
        record_in(cut)


@pytest.mark.slow
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_command_collects_and_a_kill_leaves_every_frame_whole(
    engine: Path, tmp_path: Path, front_end: str
) -> None:
    folder = tmp_path / "f"
    more = ["--collect", str(folder), "--collect-random", "1", "--collect-every", "0"]
    command = command_of(front_end, ["door=test://?fps=40"], engine, tmp_path, *more)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: len(kept(folder)) >= 5)
        process.send_signal(signal.SIGKILL)
    for path in kept(folder):
        assert read_image(path).size
        assert record(path)["source"] == "door"


def film(path: Path) -> Path:
    def shade(number: int) -> NDArray[np.uint8]:
        return solid(30 + 3 * number, 255 - 4 * number, 20, (48, 64))

    return write_video(path, [shade(number) for number in range(40)])


def test_masks_are_painted_and_the_file_says_the_same_as_flags(
    engine: Path, tmp_path: Path
) -> None:
    film(tmp_path / "c.mp4")
    (tmp_path / "c.toml").write_text(
        f'[engine]\npath = "{engine}"\n[[sources]]\nname = "a"\nuri = "c.mp4"\n'
        "masks = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]\n"
        '[collect]\nfolder = "f"\nevery_s = 1.0\nrandom_share = 1.0\nwithout = ["blue"]\n'
    )
    config = load_config(tmp_path / "c.toml")
    flags = Flags(
        collect=tmp_path / "f", collect_every=1.0, collect_random=1.0, collect_without="blue"
    )
    given, _ = flags.to_config(["test://"], append=False)
    assert replace(given.collect, folder="f") == config.collect
    command = command_of("label", [], engine, tmp_path)[:-2]
    command += ["--config", str(tmp_path / "c.toml"), "--threshold", "0.9"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert kept(tmp_path / "f")
    for path in kept(tmp_path / "f"):
        assert read_image(path).astype(int).std(axis=2).max() < 3


def test_a_reload_goes_on_with_what_did_not_change(engine: Path, tmp_path: Path) -> None:
    settings = CollectSettings(folder="f", every_s=0.0)
    source = SourceSettings("test://", "a")
    config = SessionConfig(EngineSettings(path=str(engine)), (source,), collect=settings)
    outputs = RunOutputs(tmp_path)
    [first] = outputs.open_shared(config, LABELS)
    first.write(result(90, [0.5, 0, 0]))
    assert outputs.open_shared(config, LABELS) == [first]
    fewer = replace(config, collect=replace(settings, most=1))
    [second] = outputs.open_shared(fewer, LABELS)
    second.write(result(30, [0.55, 0, 0]))  # waits until the first is closed
    first.close()
    second.close()
    assert [first.lost, second.lost] == [0, 0]
    assert outputs.open_shared(replace(config, collect=CollectSettings()), LABELS) == []
    assert len(kept(tmp_path / "f")) == 1


def test_what_could_not_be_meant_is_refused(tmp_path: Path) -> None:
    for wrong in ({"every_s": -1.0}, {"random_share": 2.0}, {"most": 0}, {"keep_days": 0.0}):
        with pytest.raises(SpecError, match="expected"):
            CollectSettings(**wrong)
    with pytest.raises(SpecError, match="--collect FOLDER"):
        Flags(collect_most=5).to_config(["test://"], append=False)
    (tmp_path / "c.toml").write_text(
        '[engine]\npath = "e"\n[[sources]]\nname = "a"\nuri = "x"\n[collect]\nrandom_share = 3\n'
    )
    with pytest.raises(SpecError, match="line 6: collect: every_s"):
        load_config(tmp_path / "c.toml")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="File exists"):
        Collect(tmp_path / "file", LABELS)
