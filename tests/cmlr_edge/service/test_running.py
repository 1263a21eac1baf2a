from __future__ import annotations

import json
import shutil
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.service.notify import Supervisor
from cmlr_edge.service.store import EngineStore
from tests.cmlr_edge.service.kill_storm import run_storm
from tests.cmlr_edge.service.running import RunningService, frames_of
from tests.cmlr_edge.service.tiny_engines import scaled_engine
from tests.conftest import make_spec

pytestmark = pytest.mark.slow

CONFIG = """
[engine]
store = "store"
[engine.update]
shadow_frames = 20
shadow_timeout_s = 20
max_flip_share = 0.1
trial_s = 0
[stability.all_labels]
min_duration_s = 0
[[sources]]
name = "camera"
uri = "test://?fps=100&size=128x96"
policy = "every"
[[sinks]]
kind = "jsonl"
path = "labels.jsonl"
"""


@pytest.fixture
def config(tmp_path: Path, engine: Path) -> Path:
    store = EngineStore(tmp_path / "store")
    store.accept(store.add(engine))
    path = tmp_path / "device.toml"
    path.write_text(CONFIG)
    return path


def update(config: Path, model: Path) -> tuple[int, dict[str, Any]]:
    from cmlr_edge.cli.app import app

    done = CliRunner().invoke(app, ["service", "update", str(config), str(model)])
    return done.exit_code, json.loads(done.stdout)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_service_tells_its_supervisor_and_ends_when_asked(config: Path) -> None:
    with RunningService(config) as service:
        assert "camera" in service.until_ready()
        alive = service.until_frames(5)
        assert alive.startswith("WATCHDOG=1\n")
        assert "0 results lost" in alive
        code, errors = service.end(signal.SIGTERM)
        service.hear(lambda message: message == "STOPPING=1")
    assert (code, errors) == (0, "")
    frames = [line["frame"] for line in lines_of(config.with_name("labels.jsonl"))]
    assert frames == list(range(len(frames)))


def test_a_reload_and_an_update_lose_no_frame(config: Path, tmp_path: Path) -> None:
    other = scaled_engine(tmp_path / "other", 0.99)
    with RunningService(config) as service:
        service.until_ready()
        before = frames_of(service.until_frames(20))
        config.write_text(
            CONFIG.replace(
                "[stability.all_labels]", "[thresholds]\nred = 0.1\n[stability.all_labels]"
            ).replace('"labels.jsonl"', '"more.jsonl"')
        )
        service.reload()
        service.until_frames(before + 40)
        code, report = update(config, other)
        assert (code, report["accepted"], report["frames"]) == (0, True, 20)
        assert 0 < report["max_score_difference"] < 0.011
        service.until_frames(before + 100)
        code, errors = service.end()
        assert code == 0
        assert "info: engine" in errors
        assert "warning" not in errors
    first, second = (lines_of(config.with_name(name)) for name in ("labels.jsonl", "more.jsonl"))
    frames = [line["frame"] for line in first + second]
    assert frames == list(range(len(frames)))
    assert not any(item["label"] == "red" for line in first for item in line["labels"])
    assert any(item["label"] == "red" for line in second for item in line["labels"])
    store = EngineStore(tmp_path / "store")
    assert store.state.serving == store.add(other)


def test_a_supervisor_that_does_not_listen_cannot_stop_the_service(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(address)
        supervisor = Supervisor(address)
        start_s = time.monotonic()
        while time.monotonic() - start_s < 5:
            before_s = time.monotonic()
            supervisor.stopping()
            if time.monotonic() - before_s > 0.4:  # it had to wait, and gave up
                break
        else:
            pytest.fail("the queue of messages never filled")
        Supervisor(str(tmp_path / "nowhere")).stopping()


def test_a_configuration_with_an_error_is_not_taken_over(config: Path) -> None:
    with RunningService(config) as service:
        service.until_ready()
        config.write_text(CONFIG.replace("test://", "nowhere://"))
        service.reload()
        config.write_text(CONFIG.replace("trial_s = 0", "trail_s = 0"))
        service.reload()
        service.until_frames(10)
        code, errors = service.end()
    assert code == 0
    text = " ".join(errors.split())
    assert "cannot open nowhere:// sources" in text
    assert "line 8" in text
    assert "trail_s" in text


def test_an_engine_that_decides_otherwise_is_refused(config: Path, tmp_path: Path) -> None:
    other = scaled_engine(tmp_path / "other", 30.0)
    with RunningService(config) as service:
        service.until_ready()
        code, report = update(config, other)
        assert service.end()[0] == 0
    assert (code, report["accepted"]) == (1, False)
    assert "decisions differ" in report["reason"]
    assert report["flips"] == sum(report["flips_by_label"].values()) > 0
    assert EngineStore(tmp_path / "store").state.fallback is None


def test_an_engine_whose_threshold_is_out_of_reach_is_refused_with_the_labels_name(
    tmp_path: Path, engine: Path
) -> None:
    spec_file = engine.with_suffix(".json")
    spec = replace(ModelSpec.load(spec_file), thresholds=(0.01, 0.5, 0.5))
    spec.save(spec_file)
    store = EngineStore(tmp_path / "store")
    store.accept(store.add(engine))
    config = tmp_path / "device.toml"
    config.write_text(CONFIG.replace("max_flip_share = 0.1", "max_flip_share = 0.4"))
    replace(spec, thresholds=(0.99999, 0.5, 0.5)).save(spec_file)
    with RunningService(config) as service:
        service.until_ready()
        code, report = update(config, engine)
        assert service.end()[0] == 0
    assert (code, report["accepted"]) == (1, False)
    assert report["reason"] == "'red' falls silent on 20 of the 20 frames with it"
    assert report["flips_by_label"] == {"red": 20}


def test_an_engine_that_fails_its_golden_sample_is_refused(config: Path, tmp_path: Path) -> None:
    other = scaled_engine(tmp_path / "other", 0.5)
    make_spec(other.read_bytes()).save(other.with_suffix(".json"))  # the sample of another engine
    with RunningService(config) as service:
        service.until_ready()
        code, report = update(config, other)
        assert service.end()[0] == 0
    assert (code, report["accepted"]) == (1, False)
    assert "golden" in report["reason"]


def test_a_source_comes_and_goes_and_the_engine_before_returns_while_the_others_go_on(
    config: Path, tmp_path: Path
) -> None:
    store = EngineStore(tmp_path / "store")
    first = store.state.serving
    store.accept(store.add(scaled_engine(tmp_path / "other", 0.5)))
    store.confirm()
    more = '[[sources]]\nname = "second"\nuri = "test://?fps=50&size=128x96"\npolicy = "every"\n'
    with RunningService(config) as service:
        before = frames_of(service.until_frames(10))
        config.write_text(CONFIG + more)
        service.reload()
        assert "second" in service.until_frames(before + 50)
        store.roll_back()
        config.write_text(CONFIG)
        service.reload()
        assert "second" not in service.hear(lambda message: message.startswith("WATCHDOG=1"))
        service.until_frames(before + 100)
        code, said = service.end()
    assert code == 0
    assert first is not None
    assert f"engine {first.id} serves, in the place of" in said
    lines = lines_of(config.with_name("labels.jsonl"))
    for source in ("camera", "second"):
        frames = [line["frame"] for line in lines if line["source"] == source]
        assert frames == list(range(len(frames)))
        assert len(frames) > 10
    assert store.state.serving == first


def test_a_damaged_engine_gives_way_to_the_one_before_it(config: Path, tmp_path: Path) -> None:
    store = EngineStore(tmp_path / "store")
    first = store.state.serving
    second = store.add(scaled_engine(tmp_path / "other", 0.5))
    store.accept(second)
    store.confirm()
    store.path(second).write_bytes(b"rotten")
    with RunningService(config) as service:
        service.until_frames(1)
        said = " ".join(service.end()[1].split())
    assert first is not None
    assert f"engine {first.id} serves again" in said
    assert store.state.serving == first


def test_a_source_that_ends_ends_the_service(config: Path) -> None:
    config.write_text(CONFIG.replace("size=128x96", "size=128x96&frames=30"))
    with RunningService(config) as service:
        service.hear(lambda message: message == "STOPPING=1")
        assert service.process.wait(20) == 0
    assert len(lines_of(config.with_name("labels.jsonl"))) == 30


def test_a_second_start_goes_on_behind_the_first_ones_lines(config: Path) -> None:
    config.write_text(CONFIG.replace("size=128x96", "size=128x96&frames=5"))
    path = config.with_name("labels.jsonl")
    for expected in (5, 10):
        with RunningService(config) as service:
            assert service.process.wait(20) == 0
        assert len(lines_of(path)) == expected
        path.write_text(path.read_text() + '{"cut off by a power')


def test_kills_during_updates_leave_a_valid_engine_and_no_frame_of_a_half_loaded_one(
    tmp_path: Path,
) -> None:
    storm = run_storm(tmp_path, updates=1, kills_each=3, seed=1)
    assert (storm.kills, storm.updates) == (3, 1)
    assert storm.stores_without_a_valid_engine == 0
    assert storm.frames["neither"] == 0
    assert storm.frames["a"] > 0
    assert storm.frames["b"] > 0


def test_a_label_that_can_hardly_be_said_is_refused_where_no_service_runs(
    config: Path, engine: Path, tmp_path: Path
) -> None:
    from cmlr_edge.cli.app import app

    changed = tmp_path / "changed"
    shutil.copytree(engine.parent, changed)
    spec_file = changed / "model.json"
    spec = ModelSpec.load(spec_file)
    replace(spec, thresholds=(*spec.thresholds[:-1], 0.99999)).save(spec_file)
    done = CliRunner().invoke(app, ["service", "update", str(config), str(changed)])
    assert done.exit_code != 0
    assert isinstance(done.exception, EngineError)
    assert f"the threshold of {spec.labels[-1]} is 0.99999" in str(done.exception)
    assert EngineStore(tmp_path / "store").state.serving is not None
