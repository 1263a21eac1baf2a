"""Engines go to the hub and come back; what is missing, changed or away is said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge import Recognizer
from cmlr_edge.errors import EngineError
from cmlr_edge.model.card import card_of
from cmlr_edge.model.hub import push
from cmlr_edge.model.spec import ModelSpec, ThresholdFit
from tests.cmlr_edge.model.hub_server import HubServer
from tests.conftest import free_port

pytest.importorskip("huggingface_hub", reason="the hub needs huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    (tmp_path / "hub").mkdir()
    server = HubServer(tmp_path / "hub")
    yield server
    server.shutdown()
    server.server_close()


def command(url: str, home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "HF_TOKEN": "hf_secret", "HOME": str(home),
    }  # fmt: skip
    words = [sys.executable, "-m", "cmlr_edge", "hub", *map(str, arguments)]
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_an_engine_goes_and_comes_back_byte_for_byte(
    engine: Path, hub: HubServer, tmp_path: Path
) -> None:
    sent = command(hub.url, tmp_path, "push", engine.parent, "me/colours")
    assert sent.returncode == 0, sent.stderr
    place = hub.folder / "me/colours"
    assert sorted(path.name for path in place.iterdir()) == [
        "README.md",
        "model.json",
        "model.onnx",
    ]
    assert "cmlr-edge hub pull me/colours" in (place / "README.md").read_text()
    (place / "virus.py").write_text("raise SystemExit")
    come = command(hub.url, tmp_path, "pull", "me/colours", "--out", tmp_path / "back")
    assert come.returncode == 0, come.stderr
    back = {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()}
    assert back == {
        name: (engine.parent / name).read_bytes() for name in ("model.json", "model.onnx")
    }
    with Recognizer.from_engine(tmp_path / "back") as recognizer:
        assert recognizer.labels == ("red", "green", "blue")


@pytest.mark.parametrize("metrics", [{}, {"val_map": 0.5}])
def test_a_card_says_that_the_pictures_of_its_numbers_chose_as_well(
    engine: Path, metrics: dict[str, float]
) -> None:
    spec = ModelSpec.load(engine.with_suffix(".json"))
    card = card_of(replace(spec, provenance=replace(spec.provenance, metrics=metrics)), "me/x")
    assert ("These pictures also chose" in card) == bool(metrics)


def test_a_card_tells_once_how_many_pictures_chose_the_thresholds(engine: Path) -> None:
    spec = ModelSpec.load(engine.with_suffix(".json"))
    assert "- **Thresholds**: as given, fitted to no pictures.\n" in card_of(spec, "me/x")
    fit = ThresholdFit("f1", "photos, 59 validation images", 59, "float32", 0.0)
    card = card_of(replace(spec, threshold_fit=fit), "me/x")
    assert "- **Thresholds**: by f1 on photos, 59 validation images.\n" in card


def test_a_card_of_ones_own_is_sent_as_it_is(engine: Path, hub: HubServer, tmp_path: Path) -> None:
    (engine.parent / "README.md").write_text("my own words")
    assert command(hub.url, tmp_path, "push", engine, "me/colours").returncode == 0
    assert (hub.folder / "me/colours/README.md").read_text() == "my own words"


def test_what_was_changed_on_the_way_is_refused_and_nothing_is_replaced(
    engine: Path, hub: HubServer, tmp_path: Path
) -> None:
    assert command(hub.url, tmp_path, "push", engine.parent, "me/colours").returncode == 0
    (hub.folder / "me/colours/model.onnx").write_bytes(b"another")
    before = {path: path.read_bytes() for path in engine.parent.iterdir()}
    come = command(hub.url, tmp_path, "pull", "me/colours", "--out", engine.parent)
    assert come.returncode == 2
    assert "the file was changed or cut short" in come.stderr
    assert {path: path.read_bytes() for path in engine.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("missing", "me/nothing is not on the hub, or not for you"),
        ("no engine", "me/nothing has no model.json: it is not an engine of cmlr_edge"),
        ("huge", "expected at most 4 GiB"),
        ("refused", "the hub answers 403 for me/nothing"),
        ("away", "the hub cannot be reached for me/nothing"),
        ("bad name", "a/b/c is no name on the hub: expected owner/name"),
    ],
)
def test_trouble_is_one_line(trouble: str, said: str, hub: HubServer, tmp_path: Path) -> None:
    place = hub.folder / "me/nothing"
    if trouble in {"no engine", "huge"}:
        place.mkdir(parents=True)
        (place / "weights.bin").touch()
    if trouble == "huge":
        (place / "model.json").write_text("{}")
        hub.sizes["model.json"] = 5 << 30
    hub.refuse = 403 if trouble == "refused" else 0
    url = f"http://127.0.0.1:{free_port()}" if trouble == "away" else hub.url
    name = "a/b/c" if trouble == "bad name" else "me/nothing"
    come = command(url, tmp_path, "pull", name, "--out", tmp_path / "models" / "back")
    assert come.returncode == 2
    assert said in come.stderr
    assert len(come.stderr.strip().splitlines()) == 1
    assert "hf_secret" not in come.stderr
    assert not (tmp_path / "models").exists()


def test_an_engine_that_is_not_there_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^no engine at .*first: "):
        push(tmp_path / "first", "me/first")
