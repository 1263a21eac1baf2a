"""A label is taught from the engine in service, comes into service, is improved there, and goes again."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cmlr_edge.cli.app import app
from cmlr_edge.place import store
from cmlr_edge.place.store import StoredPlace
from cmlr_edge.service.store import EngineStore
from tests.cmlr_edge.service.running import RunningService
from tests.cmlr_edge.teaching.patches import picture, write_pictures
from tests.conftest import write_video
from tests.placed_engine import write_placed_engine

pytestmark = pytest.mark.slow

CONFIG = """
place = "places"
place_block_s = 1
[engine]
store = "store"
provider = "cpu"
[engine.update]
shadow_frames = 10
max_flip_share = 0.5
trial_s = 0
[stability.all_labels]
min_duration_s = 0
[thresholds]
red = 0.05
[[sources]]
name = "door"
uri = "door.avi"
policy = "newest"
loop = true
[[sinks]]
kind = "events"
path = "events.jsonl"
[[sinks]]
kind = "csv"
path = "scores.csv"
[page]
port = 0
"""


def invoke(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*map(str, words)])
    return done.exit_code, done.stdout + str(done.exception or "")


def teach(folder: Path, engine: Path, count: int, seed: int, out: str) -> Path:
    pictures = []
    for option, yellow in (("--positive", True), ("--negative", False)):
        to = write_pictures(folder / f"{option}{seed}", count, yellow=yellow, seed=seed)
        pictures += [option, to]
    label = "--label", "yellow", "--provider", "cpu"
    code, said = invoke("teach", engine, *label, *pictures, "--out", folder / out)
    assert code == 0, said
    return folder / out


def place_in(folder: Path) -> StoredPlace:
    return store.load(store.path_of(folder / "places", "door"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [*csv.DictReader(file)]


def film(path: Path) -> Path:
    """Eight seconds, half of them with something yellow in sight."""
    import numpy as np

    rng = np.random.default_rng(5)
    each = [picture(rng, yellow=i >= 40) for i in range(80)]
    return write_video(path, each, fps=10)


def test_a_label_is_taught_comes_into_service_is_improved_and_goes(tmp_path: Path) -> None:
    first = write_placed_engine(tmp_path / "first")
    film(tmp_path / "door.avi")
    config = tmp_path / "device.toml"
    config.write_text(CONFIG)
    assert invoke("service", "update", config, first)[0] == 0
    taught = teach(tmp_path, first, 20, 0, "taught")
    better = teach(tmp_path, taught, 20, 1, "better")
    engines = EngineStore(tmp_path / "store")

    with RunningService(config) as service:
        service.until_frames(30)
        code, said = invoke("service", "update", config, taught)
        assert (code, json.loads(said.removesuffix("1"))["reason"]) == (1, OTHER_LABELS)
        assert service.end()[0] == 0
    before = place_in(tmp_path)
    assert before.num_blocks > 0
    assert "yellow" not in rows_of(tmp_path / "scores.csv")[0]

    config.write_text(CONFIG.replace("red = 0.05", "red = 0.05\nyellow = 0.3"))
    code, said = invoke("service", "update", config, taught)
    assert code == 0
    assert "serves without that of which" in said  # the first knows no yellow
    with RunningService(config) as service:
        service.until_frames(100)
        code, said = invoke("service", "update", config, better)
        report: dict[str, Any] = json.loads(said)
        assert (code, report["accepted"], report["frames"]) == (0, True, 10), report
        assert {*report["flips_by_label"]} <= {"yellow"}  # no old decision differs
        assert invoke("service", "roll-back", config)[0] == 0
        service.reload()
        assert engines.state.serving == engines.add(taught)
        code, errors = service.end()
    assert (code, re.findall("warning|error", errors)) == (0, []), errors
    after = place_in(tmp_path)
    assert after.num_blocks > before.num_blocks
    assert after.trained == before.trained
    assert not [*(tmp_path / "places").glob("*.old")]
    rows = rows_of(tmp_path / "scores.csv")
    assert "yellow" in rows[0]
    assert "yellow" not in rows_of(tmp_path / "scores.csv.1")[0]
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    ids = [e["id"] for e in events if e["kind"] == "start"]
    ended = [e["id"] for e in events if e["kind"] == "end"]
    assert len({*ids}) == len(ids)
    assert sorted(ids) == sorted(ended)  # also over the swap and the way back
    assert {"yellow"} <= {e["label"] for e in events}


OTHER_LABELS = "its labels differ: stop the service, update, and start it again"


def test_an_engine_without_a_label_that_the_configuration_names_is_no_way_back(
    tmp_path: Path,
) -> None:
    """The next start would fail by it: update and roll-back say so, and the engine in service stays."""
    first = write_placed_engine(tmp_path / "first")
    taught = teach(tmp_path, first, 20, 0, "taught")
    config = tmp_path / "device.toml"
    config.write_text(CONFIG)
    for engine in (first, taught):
        assert invoke("service", "update", config, engine)[0] == 0
    engines = EngineStore(tmp_path / "store")
    serving = engines.state.serving
    for change in (
        {"red = 0.05": "yellow = 0.3"},
        {"[thresholds]": "[stability.labels.yellow]\nmin_gap_s = 2\n[thresholds]"},
        {"loop = true": 'loop = true\nlabels = ["yellow"]'},
        {"[page]": '[collect]\nfolder = "to_label"\nwithout = ["yellow"]\n[page]'},
    ):
        [(old, new)] = change.items()
        config.write_text(CONFIG.replace(old, new))
        for way in (("roll-back", config), ("update", config, first)):
            code, said = invoke("service", *way)
            assert code != 0
            assert "would not start with it" in said
            assert "yellow" in said
        assert engines.state.serving == serving
    config.write_text(CONFIG)
    assert invoke("service", "roll-back", config)[0] == 0
    assert engines.state.serving == engines.add(first)
