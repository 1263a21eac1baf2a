"""Each event has a picture: the best one, whole, masked, and never more than there is room for."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.sinks import Result, Snapshots
from cmlr_edge.sinks import kept_files as module
from cmlr_edge.sinks.opening import SinkSettings
from tests.cmlr_edge.session.front_ends import FRONT_ENDS, command_of
from tests.cmlr_edge.sinks.samples import frame, prediction
from tests.conftest import solid, write_video
from tests.waiting import wait_until

LABELS = ("red", "green", "blue")


def event(kind: str, number: int = 0, label: str = "red", score: float = 0.6) -> Event:
    return Event(kind, f"{number:032x}", "front door", label, 1.0, 0.5, 2.0, score, score, 0.0)  # type: ignore[arg-type]


def result(shade: int, score: float, *events: Event, ending: bool = False) -> Result:
    scores = np.array([score, 0, 0], np.float32)
    picture = replace(frame(0), image_bgr=solid(shade, 0, 0))
    return Result(
        picture, replace(prediction(), scores=scores), events, "front door", ending=ending
    )


def pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.jpg"))


def shade_of(path: Path) -> int:
    return round(float(read_image(path)[..., 2].mean()))


def test_the_best_moment_is_kept_and_the_first_one_until_then(tmp_path: Path) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    sink.write(result(50, 0.6, event("start")))
    [path] = pictures(tmp_path / "s")
    assert path == sink.path_of(event("start"))
    assert path.name.startswith("red_")
    assert abs(shade_of(path) - 50) <= 2
    sink.write(result(100, 0.62))  # hardly better
    sink.write(result(150, 0.95))
    sink.write(result(200, 0.7))
    sink.write(replace(result(250, 0.0, event("end"), ending=True)))
    assert pictures(tmp_path / "s") == [path]
    assert abs(shade_of(path) - 150) <= 2
    sink.close()


def test_an_event_that_was_never_better_keeps_its_first_picture(tmp_path: Path) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    sink.write(result(50, 0.9, event("start", score=0.9)))
    sink.write(result(200, 0.5, event("end")))
    assert abs(shade_of(pictures(tmp_path / "s")[0]) - 50) <= 2


def test_an_invalid_frame_is_no_better_picture(tmp_path: Path) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    sink.write(result(50, 0.6, event("start")))
    bad = result(200, 0.99)
    sink.write(replace(bad, prediction=replace(bad.prediction, valid=False)))
    sink.write(result(60, 0.1, event("end")))
    assert abs(shade_of(pictures(tmp_path / "s")[0]) - 50) <= 2


def test_older_pictures_make_room_and_others_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sink = Snapshots(folder, LABELS)
    sink.write(result(50, 0.6, event("start", 0)))
    size = pictures(folder)[0].stat().st_size
    strangers = [folder / "front_door" / "family.jpg", folder / "notes.txt"]
    pictures(folder)[0].parent.joinpath("x").touch()
    for stranger in strangers:
        stranger.parent.mkdir(exist_ok=True)
        stranger.write_bytes(b"x" * 10 * size)
    sink = Snapshots(folder, LABELS, keep_bytes=3.5 * size)  # as after a restart
    for number in range(1, 10):
        sink.write(result(50, 0.6, event("start", number)))
    ours = [path for path in pictures(folder) if path not in strangers]
    assert [path.name for path in ours] == [f"red_{number:032x}.jpg" for number in (7, 8, 9)]
    assert all(stranger.exists() for stranger in strangers)


def test_a_wall_clock_that_is_set_makes_no_picture_old(tmp_path: Path) -> None:
    clock, wall = [1000.0], [0.0]  # the first goes on; the other is set as the machine pleases
    for wall[0] in (1e6, 4e9, 1.8e9):  # not set yet, a wrong one, the right one
        sink = Snapshots(tmp_path / "s", LABELS, clock=lambda: clock[0], wall_clock=lambda: wall[0])
        sink.write(result(50, 0.6, event("start", len(pictures(tmp_path / "s")))))
        newest = max(pictures(tmp_path / "s"))
        os.utime(newest, (min(wall[0], 1.8e9),) * 2)
        clock[0] += 60
    assert [path.stem[-1] for path in pictures(tmp_path / "s")] == ["0", "1", "2"]
    clock[0] += 31 * 86400
    sink.write(result(50, 0.6, event("start", 3)))
    assert [path.stem[-1] for path in pictures(tmp_path / "s")] == ["3"]


def test_pictures_of_a_clock_that_was_not_set_are_the_newest(tmp_path: Path) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    for number in range(3):
        sink.write(result(50, 0.6, event("start", number)))
    size = pictures(tmp_path / "s")[0].stat().st_size
    for path, at in zip(pictures(tmp_path / "s"), (1.7e9, 2e5, 1e5), strict=True):
        os.utime(path, (at, at))
    sink = Snapshots(tmp_path / "s", LABELS, keep_bytes=3.5 * size, wall_clock=lambda: 1.7e9 + 60)
    sink.write(result(50, 0.6, event("start", 3)))
    assert [path.stem[-1] for path in pictures(tmp_path / "s")] == ["1", "2", "3"]


def test_old_pictures_are_deleted(tmp_path: Path) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    sink.write(result(50, 0.6, event("start", 0)))
    long_ago = time.time() - 31 * 86400
    os.utime(pictures(tmp_path / "s")[0], (long_ago, long_ago))
    sink = Snapshots(tmp_path / "s", LABELS)
    sink.write(result(50, 0.6, event("start", 1)))
    assert [path.stem[-1] for path in pictures(tmp_path / "s")] == ["1"]


def test_old_pictures_are_deleted_where_no_new_ones_come(tmp_path: Path) -> None:
    clock = [1000.0]
    sink = Snapshots(tmp_path / "s", LABELS, keep_days=1, clock=lambda: clock[0])
    sink.write(result(50, 0.6, event("start", 0)))
    for hours, is_kept in ((23, True), (2, False)):
        clock[0] += hours * 3600
        sink.write(result(50, 0.1))  # a frame in which nothing happens
        assert bool(pictures(tmp_path / "s")) is is_kept


def test_a_disk_that_fills_up_costs_old_pictures_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    for number in range(3):
        sink.write(result(50, 0.6, event("start", number)))
    free = 100 * 10**6  # less than others need

    def usage(_folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free + 60 * 10**6 * (3 - len(pictures(tmp_path / "s"))))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    sink.write(result(50, 0.6, event("start", 3)))
    assert [path.stem[-1] for path in pictures(tmp_path / "s")] == ["2", "3"]


def test_a_disk_that_is_full_loses_a_picture_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    sink = Snapshots(tmp_path / "s", LABELS, clock=lambda: now_s[0])

    def full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            sink.write(result(50, 0.6, event("start", 0), event("start", 1)))
        assert caught.value.lost == 2
        sink.write(result(50, 0.6))
    assert "No space left" in sink.trouble  # nothing was to be written since
    now_s[0] += 20
    sink.tend()
    assert not sink.trouble  # it would be now
    sink.write(result(50, 0.6, event("start", 2)))
    assert [path.stem[-1] for path in pictures(tmp_path / "s")] == ["2"]


def test_names_of_any_kind_make_files_inside_the_folder(tmp_path: Path) -> None:
    sink = Snapshots(tmp_path / "s", LABELS)
    odd = replace(event("start"), source="rtsp://***@x/../../etc", label="../red/\x1b[31m")
    assert (tmp_path / "s") in sink.path_of(odd).parents
    assert ".." not in sink.path_of(odd).parts
    assert sink.path_of(odd).name.isprintable()


@pytest.mark.slow
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_command_takes_pictures_which_a_kill_leaves_whole(
    engine: Path, tmp_path: Path, front_end: str
) -> None:
    sources = ["door=test://?fps=20"]
    more = ["--threshold", "0.2", "--snapshots", str(tmp_path / "s")]
    command = command_of(front_end, sources, engine, tmp_path, *more)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: pictures(tmp_path / "s"))
        process.send_signal(signal.SIGKILL)
    for path in pictures(tmp_path / "s"):
        assert read_image(path).size


def test_masks_are_painted_before(engine: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "c.mp4", [solid(250, 0, 0)] * 20)
    more = ["--mask", "0,0 1,0 1,1 0,1", "--threshold", "0.2", "--snapshots", str(tmp_path / "s")]
    command = command_of("label", [f"x={tmp_path / 'c.mp4'}"], engine, tmp_path, *more)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = pictures(tmp_path / "s")
    assert len(found) == 3  # grey is a little of everything
    for path in found:
        assert read_image(path).astype(int).std(axis=2).max() < 3


def test_what_could_not_be_meant_is_refused(tmp_path: Path) -> None:
    for limits in ({"keep_mb": 0.0}, {"keep_days": -1.0}):
        with pytest.raises(SpecError, match="keep_"):
            SinkSettings("snapshots", path="s", **limits)  # type: ignore[arg-type]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="File exists"):
        Snapshots(tmp_path / "file", LABELS)
