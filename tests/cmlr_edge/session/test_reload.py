"""What a running session makes of a changed configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from cmlr_edge.errors import CmlrError
from cmlr_edge.model.stability import StabilityChange, StabilityRules
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, SourceSettings
from cmlr_edge.sinks.opening import SinkSettings
from tests.conftest import make_spec, mean_color_model, solid, write_engine
from tests.waiting import wait_until

FAST = "test://?fps=50&size=128x96"
LINES = SinkSettings("jsonl", path="lines.jsonl", append=False)
VIDEO = SinkSettings("overlay", path="v.mp4")


def planned(engine: Path, *sources: SourceSettings) -> SessionConfig:
    return SessionConfig(EngineSettings(path=str(engine)), sources, (LINES,))


def reload(session: Session, config: SessionConfig, other: Recognizer | None = None) -> None:
    with ExitStack() as undo:
        session.apply(config, None if other is None else (other, ""), undo)


def more_frames(session: Session) -> None:
    before = {status.name: status.frames for status in session.status()}
    wait_until(lambda: all(s.frames > before.get(s.name, 0) + 3 for s in session.status()))


def test_sources_without_a_name_follow_a_reload(engine: Path, tmp_path: Path) -> None:
    config = planned(engine, SourceSettings(FAST), SourceSettings(FAST))
    slower = replace(config, stability=StabilityRules(StabilityChange(min_gap_s=2.0)))
    with Session(config, folder=tmp_path) as session:
        session.streams.start()
        more_frames(session)
        reload(session, slower)
        more_frames(session)
        assert [status.name for status in session.status()] == [FAST, f"{FAST} #2"]
        reload(session, replace(slower, sources=slower.sources[:1]))
        assert [status.name for status in session.status()] == [FAST]
        assert session.has_times(FAST)


def test_each_source_has_a_file_of_its_own_whenever_it_comes(engine: Path, tmp_path: Path) -> None:
    door, yard, gate = (SourceSettings(FAST, name) for name in ("door", "yard", "gate"))
    config = planned(engine, door)
    with Session(config, folder=tmp_path) as session:
        session.streams.start()
        more_frames(session)
        with_video = replace(config, sinks=(LINES, VIDEO))
        reload(session, with_video)
        more_frames(session)
        reload(session, replace(with_video, sources=(door, yard)))
        more_frames(session)
        reload(session, replace(with_video, sources=(yard, gate)))
        more_frames(session)
        reload(session, replace(config, sources=(yard, gate)))
        wait_until((tmp_path / "v-3.mp4").exists)
        assert session.lost == 0
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["v-2.mp4", "v-3.mp4", "v.mp4"]


def test_the_same_source_twice_has_two_files(engine: Path, clip: Path, tmp_path: Path) -> None:
    twice = planned(engine, SourceSettings(str(clip)), SourceSettings(str(clip)))
    with Session(replace(twice, sinks=(VIDEO,)), folder=tmp_path) as session:
        session.streams.start()
        assert session.streams.wait(30)
        assert session.lost == 0
    assert sorted(path.name for path in tmp_path.glob("v*.mp4")) == ["v-1.mp4", "v-2.mp4"]


def test_a_file_that_goes_on_otherwise_keeps_its_lines(engine: Path, tmp_path: Path) -> None:
    config = planned(engine, SourceSettings(FAST, "door", policy="every"))
    with Session(config, folder=tmp_path) as session:
        session.streams.start()
        more_frames(session)
        for rotate_mb in (50.0, 20.0):
            other = replace(LINES, path="./lines.jsonl", rotate_mb=rotate_mb)
            reload(session, replace(config, sinks=(other,)))
            more_frames(session)
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(len(lines)))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("labels", "labels"),
        ("store", "store"),
        ("output", "belongs to the source"),
        ("overlay", ".mp4"),
        ("two outputs", "two outputs"),
        ("times", "no times"),
    ],
)
def test_what_cannot_be_taken_over_changes_nothing(
    engine: Path, clip: Path, tmp_path: Path, case: str, said: str
) -> None:
    door = SourceSettings(FAST, "door")
    config, other = planned(engine, door), None
    changed = replace(config, sources=(door, SourceSettings(str(clip), "clip")))
    if case == "labels":
        content = mean_color_model()
        (tmp_path / "other").mkdir()
        other = Recognizer.from_engine(
            write_engine(tmp_path / "other", content, make_spec(content, ("a", "b", "c")))
        )
    elif case == "store":
        changed = replace(changed, engine=EngineSettings(store="store"))
    elif case == "times":
        picture = tmp_path / "p.png"
        cv2.imwrite(str(picture), solid(1, 2, 3))
        events = SinkSettings("events", path="e.jsonl")
        sources = (door, SourceSettings(str(picture), "p"))
        changed = replace(changed, sources=sources, sinks=(LINES, events))
    else:
        sinks = {
            "output": (LINES, SinkSettings("csv", path=str(clip))),
            "overlay": (LINES, SinkSettings("overlay", path="v.avi")),
            "two outputs": (LINES, SinkSettings("csv", path="lines.jsonl")),
        }
        changed = replace(changed, sinks=sinks[case])
    with Session(config, folder=tmp_path) as session:
        session.streams.start()
        more_frames(session)
        with pytest.raises(CmlrError, match=said):
            reload(session, changed, other)
        assert session.config is config
        more_frames(session)
        assert [status.name for status in session.status()] == ["door"]
        assert [status.name for status in session.output_status()] == [
            str(tmp_path / "lines.jsonl")
        ]
    if other is not None:
        other.close()


def test_label_sums_up_what_a_reload_brought(engine: Path, tmp_path: Path) -> None:
    base = f'[engine]\npath = "{engine}"\n[[sinks]]\nkind = "jsonl"\npath = "lines.jsonl"\n'
    door, yard = (f'[[sources]]\nname = "{name}"\nuri = "{FAST}"\n' for name in ("door", "yard"))
    config, lines = tmp_path / "device.toml", tmp_path / "lines.jsonl"
    config.write_text(base + door)
    process = subprocess.Popen(
        [sys.executable, "-m", "cmlr_edge", "label", FAST, "--config", str(config), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    wait_until(lambda: lines.exists() and "door" in lines.read_text())
    config.write_text(base + door + yard)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "yard" in lines.read_text())
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert [item["source"] for item in json.loads(output)["sources"]] == ["door", FAST, "yard"]
