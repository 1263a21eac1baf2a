"""One source's place: counted, kept over restarts, told, and never a crash whatever lies in its folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmlr_edge.errors import SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.place import store
from cmlr_edge.place.settings import PlaceSettings
from cmlr_edge.place.watch import PlaceNotice, PlaceWatch
from cmlr_edge.place.words import sentences_of
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.why import Reasons
from tests.conftest import solid
from tests.placed_engine import TRAINING, meaning, spec_of_places

SETTINGS = PlaceSettings(block_s=10)
LIKE = [TRAINING.contexts[number] for number in (0, 1, 2, 0, 1, 2, 0, 1, 2, 0)] * 4
ELSE: list[tuple[float, ...]] = [(0.0, 0.1, 0.9)] * 12


def watch(folder: Path, **changes: Any) -> PlaceWatch:
    return PlaceWatch(
        "door", replace(SETTINGS, **changes), folder, spec_of_places(), tell_why=False
    )


def show(
    watched: PlaceWatch,
    contexts: Sequence[tuple[float, ...]],
    *,
    start_s: float = 0.0,
    frames: int = 3,
    training: TrainedSurroundings = TRAINING,
    model: str = "",
) -> list[PlaceNotice]:
    """Each context for a block of ten seconds."""
    told = []
    for number in range(len(contexts) * frames):
        context = np.array(contexts[number // frames], np.float32)
        color = [round(255 * share) for share in context]
        time_s = start_s + 10 * number / frames
        frame = Frame(
            solid(color[0], color[1], color[2], (40, 60)), number, time_s, 0.0, 0.0, "door"
        )
        outputs = {"own_evidence": np.zeros(3, np.float32), "context": context}
        labels, scores = ("red", "green", "blue"), np.zeros(3, np.float32)
        reasons = Reasons(labels, scores, outputs, meaning(training), (0.5,) * 3, model=model)
        said, notice = watched.take(
            frame, Prediction(reasons.scores, (), Latency(), 0.0, why=reasons)
        )
        assert said.why is None
        told += [notice] if notice else []
    return told


def test_an_alarm_begins_once_shows_its_pictures_and_ends(tmp_path: Path) -> None:
    watched = watch(tmp_path / "places")
    told = show(watched, [*LIKE, *ELSE * 3, *LIKE * 4], frames=1)
    assert [notice.unlike for notice in told] == [True, False]
    assert told[0].id == told[1].id
    first = told[0].record["surroundings"][0]
    assert first["confounder"] == 2
    assert first["here"] > first["in_training"] == pytest.approx(0.32)
    assert "blue" in first["speaks_for"]
    for name in told[0].record["pictures"]:
        assert Path(name).read_bytes().startswith(b"\xff\xd8")
    assert 0 < len(told[0].record["pictures"]) <= store.MOST_PICTURES


def test_what_is_known_is_kept_over_a_restart_however_often(tmp_path: Path) -> None:
    whole, parts = watch(tmp_path / "whole"), tmp_path / "parts"
    contexts = [*LIKE[:10], *ELSE[:4]]
    show(whole, contexts)
    whole.close()
    for number, context in enumerate(contexts):
        watched = watch(parts)
        show(watched, [context], start_s=0.0)  # the clock of a film begins anew
        show(watched, [context], start_s=10.0, frames=1) if number == len(contexts) - 1 else None
        watched.close()
    one, other = (store.load(store.path_of(f, "door")) for f in (tmp_path / "whole", parts))
    assert one.num_blocks == len(contexts) - 1
    # Between two runs no time is seen: a third of each block is missing.
    assert len(contexts) * 0.6 <= other.num_blocks <= len(contexts)
    assert other.open_frames > 0


def test_an_alarm_that_stands_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    first = watch(tmp_path)
    [notice] = show(first, [*LIKE, *ELSE * 2])
    first.close()
    again = watch(tmp_path)
    assert show(again, ELSE) == []
    assert again.status.unlike
    [over] = show(again, LIKE * 4, frames=1)
    assert (over.id, over.unlike) == (notice.id, False)


@pytest.mark.parametrize("how", ["swap", "swap on a full disk", "restart", "another block"])
def test_an_alarm_of_an_engine_with_other_surroundings_is_told_as_over_once(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch(tmp_path)
    [notice] = show(watched, [*LIKE, *ELSE * 2])
    other = TRAINING if how == "another block" else replace(TRAINING, prior=(0.3, 0.3, 0.4))
    if how == "swap on a full disk":
        store.path_of(tmp_path, "door").unlink()
        monkeypatch.setattr(store, "save", raise_full)
    if how in {"restart", "another block"}:
        watched.close()
        spec = replace(spec_of_places(), explanation=meaning(other))
        settings = PlaceSettings(block_s=10 if how == "restart" else 20)
        watched = PlaceWatch("door", settings, tmp_path, spec, tell_why=False)
    [over] = show(watched, LIKE, training=other)
    assert (over.id, over.unlike, over.record["unlike"]) == (notice.id, False, False)
    assert not watched.status.unlike


@pytest.mark.parametrize("back", [False, True])
def test_an_alarm_waits_for_a_run_with_frames(tmp_path: Path, back: bool) -> None:
    watched = watch(tmp_path)
    [notice] = show(watched, [*LIKE, *ELSE * 2])
    watched.close()
    other = replace(TRAINING, prior=(0.3, 0.3, 0.4))
    spec = replace(spec_of_places(), explanation=meaning(other))
    PlaceWatch("door", SETTINGS, tmp_path, spec, tell_why=False).close()  # no camera came up
    assert store.load(store.path_of(tmp_path, "door")).alarm == notice.id
    if back:
        assert show(watch(tmp_path), ELSE) == []  # the alarm stands, and is told already
        return
    watched = PlaceWatch("door", SETTINGS, tmp_path, spec, tell_why=False)
    assert [(over.id, over.unlike) for over in show(watched, LIKE, training=other)] == [
        (notice.id, False)
    ]
    watched.close()
    assert store.load(store.path_of(tmp_path, "door").with_suffix(".json.old")).alarm == notice.id


def test_an_alarm_stands_where_its_engine_comes_back_before_a_frame(tmp_path: Path) -> None:
    watched = watch(tmp_path)
    [_] = show(watched, [*LIKE, *ELSE * 2])
    watched.close()
    spec = replace(spec_of_places(), explanation=meaning(replace(TRAINING, prior=(0.3, 0.3, 0.4))))
    watched = PlaceWatch("door", SETTINGS, tmp_path, spec, tell_why=False)
    assert show(watched, ELSE) == []  # of the first engine, which was swapped in meanwhile
    assert watched.status.unlike


def raise_full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_file_names_the_engine_that_the_place_is_held_against(tmp_path: Path) -> None:
    watched, path = watch(tmp_path), store.path_of(tmp_path, "door")
    show(watched, LIKE[:2], model="first")
    show(watched, LIKE[:2], model="taught", training=replace(TRAINING))
    watched.close()
    assert store.load(path).model == "taught"
    show(watched, LIKE[:2], model="third", training=replace(TRAINING, prior=(0.3, 0.3, 0.4)))
    watched.close()
    assert store.load(path).model == "third"
    assert store.load(path.with_suffix(".json.old")).model == "taught"


def _kept(folder: Path) -> dict[str, Any]:
    watched = watch(folder)
    show(watched, LIKE)
    watched.close()
    found: dict[str, Any] = json.loads(store.path_of(folder, "door").read_text())
    return found


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"\x00" * 100, b"[" * 100_000, b"{}", b"null", b'{"blocks": 1e999}',
        {"blocks": [[1.0]]}, {"shares": [-1.0, 0.0, 0.0]}, {"open_sum": [1e300] * 3}, {"num_pictures": 10**9},
        {"blocks": [[0.1, 0.2, 0.7]] * 500}, {"training": "another"}, {"format_version": 2}, {"source": 3},
        {"open_s": -1.0}, {"block_s": 600.0}, {"block_s": 0.0}, {"alarm": "\ud800"}, {"unknown": 1},
        {"shares": [0.1] * 5}, {"open_frames": -3}, {"num_blocks": 0}, {"speaks_for": []},
        {"open_frames": 2**70}, {"num_blocks": 99}, {"blocks": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_file_is_set_aside_and_the_place_begins_anew(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.path_of(tmp_path, "door")
    content = damage if isinstance(damage, bytes) else json.dumps(_kept(tmp_path) | damage).encode()
    path.write_bytes(content)
    caplog.clear()
    watched = watch(tmp_path)
    show(watched, LIKE[:3])
    watched.close()
    assert path.with_suffix(".json.old").read_bytes() == content
    assert "begins anew" in caplog.text
    assert store.load(path).num_blocks == 2


def test_a_place_that_is_unlike_since_no_date_is_told_all_the_same(tmp_path: Path) -> None:
    path = store.path_of(tmp_path, "door")
    path.write_text(json.dumps(_kept(tmp_path) | {"unlike_since": 1e300}))
    assert sentences_of(store.load(path))[0].endswith("since ?")


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "places").write_text("a file")
    watched = watch(tmp_path / "places")
    [notice] = show(watched, [*LIKE, *ELSE * 2])
    watched.close()
    assert notice.record["pictures"] == []
    assert 1 <= caplog.text.count("cannot be written") <= 6


def test_a_file_that_is_a_pipe_or_a_folder_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(store.path_of(tmp_path, "door"))
    watched = watch(tmp_path)
    show(watched, LIKE[:3])
    watched.close()
    assert store.load(store.path_of(tmp_path, "door")).num_blocks == 2


def test_what_a_killed_process_left_half_written_goes_and_only_that(tmp_path: Path) -> None:
    names = [".door.place.json.12.part", ".door.place-1.jpg.12.part", ".door2.place.json.12.part"]
    names += ["door.place-1.jpg"]
    for name in names:
        (tmp_path / name).touch()
    watch(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


def test_a_file_of_others_in_the_folder_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("door.json", "door-1.jpg"):  # a spec, a photo
        (tmp_path / name).write_text("theirs")
    watched = watch(tmp_path)
    show(watched, [*LIKE, *ELSE * 2])
    watched.close()
    assert (tmp_path / "door.json").read_text() == "theirs"
    assert (tmp_path / "door-1.jpg").read_text() == "theirs"


def test_a_name_that_is_too_long_for_a_file_is_cut(tmp_path: Path) -> None:
    names = "d" * 300, "d" * 301
    for name in names:
        watched = PlaceWatch(name, SETTINGS, tmp_path, spec_of_places(), tell_why=False)
        show(watched, LIKE[:2])
        watched.close()
    assert len({path for name in names if (path := store.path_of(tmp_path, name)).exists()}) == 2


def test_pictures_without_times_are_a_block_each(tmp_path: Path) -> None:
    watched = watch(tmp_path)
    for number in range(4):
        frame = Frame(solid(10, 20, 30, (40, 60)), number, None, 0.0, 0.0, "a.jpg")
        outputs = {"context": np.full(3, 1 / 3, np.float32)}
        why = Reasons(("r", "g", "b"), np.zeros(3, np.float32), outputs, meaning(), (0.5,) * 3)
        watched.take(frame, Prediction(why.scores, (), Latency(), 0.0, why=why))
    watched.close()
    assert store.load(store.path_of(tmp_path, "door")).num_blocks == 3


def test_frames_that_say_nothing_are_not_counted(tmp_path: Path) -> None:
    watched = watch(tmp_path)
    frame = Frame(solid(0, 0, 0, (40, 60)), 0, 0.0, 0.0, 0.0, "door")
    for changes in ({"valid": False}, {"repeated": True}, {"why": None}):
        watched.take(frame, Prediction(np.zeros(3, np.float32), (), Latency(), 0.0, **changes))
    watched.close()
    assert watched.status.blocks == 0
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "changes", [{"block_s": 0.5}, {"false_alarms": 2.0}, {"false_alarms": 0.0}]
)
def test_settings_that_cannot_be_meant_are_refused(changes: Any) -> None:
    with pytest.raises(SpecError, match="expected"):
        PlaceSettings(**changes)


def test_an_engine_that_was_taught_a_label_or_built_again_goes_on_in_the_same_block(
    tmp_path: Path,
) -> None:
    """Its surroundings are the same; those of another training are counted anew, and nothing is lost."""
    watched = watch(tmp_path)
    path = store.path_of(tmp_path, "door")

    def see(time_s: float, labels: tuple[str, ...], training: TrainedSurroundings) -> None:
        frame = Frame(solid(10, 20, 30, (40, 60)), 0, time_s, 0.0, 0.0, "door")
        outputs = {"context": np.full(3, 1 / 3, np.float32)}
        scores = np.zeros(len(labels), np.float32)
        why = Reasons(labels, scores, outputs, meaning(training), (0.5,) * len(labels))
        watched.take(frame, Prediction(scores, (), Latency(), 0.0, why=why))

    taught = ("red", "green", "blue", "forklift")
    see(0.0, taught[:3], TRAINING)
    see(1.0, taught, replace(TRAINING))  # another one, and the same numbers
    watched.close()
    assert store.load(path).open_frames == 2
    see(2.0, taught, replace(TRAINING, prior=(0.3, 0.3, 0.4)))
    watched.close()
    assert store.load(path).open_frames == 1
    assert store.load(path.with_suffix(".json.old")).open_frames == 2
