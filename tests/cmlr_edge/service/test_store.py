from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.service.store import MAX_UNCONFIRMED_STARTS, EngineStore, StoreState
from cmlr_edge.service.update import reason_of, start_check
from tests.cmlr_edge.service.tiny_engines import scaled_engine

KILL_AT_EVERY_STEP = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from cmlr_edge.service.store import EngineStore

work, first, second = map(Path, sys.argv[1:])

def update(store):
    engine = store.add(second)
    store.offer(engine)
    assert store.take_offer() == engine
    store.accept(engine)
    store.confirm()
    store.clean()

def killed_at(step, store):
    steps = itertools.count()
    def hook(event, _arguments):
        if event in {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        sys.addaudithook(hook)
        update(store)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

for step in itertools.count():
    shutil.rmtree(work, ignore_errors=True)
    store = EngineStore(work)
    old = store.add(first)
    store.accept(old)
    killed = killed_at(step, store)
    serving = store.state.serving
    store.checked(serving)
    new = store.add(second)
    print(step, serving in {old, new}, serving == new)
    update(store)
    assert store.state.serving == new and store.checked(new)
    if not killed:
        break
"""


def test_an_added_engine_is_checked_against_the_id_that_its_content_makes(
    store: EngineStore, engine: Path
) -> None:
    added = store.add(engine)
    assert store.checked(added).content == engine.read_bytes()
    assert store.add(engine.parent) == added
    path = store.path(added)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(EngineError, match="was changed"):
        store.checked(added)


def test_a_file_that_its_spec_does_not_describe_is_never_copied(
    store: EngineStore, engine: Path, tmp_path: Path
) -> None:
    engine.write_bytes(engine.read_bytes()[:100])
    with pytest.raises(EngineError, match="copy engine and spec again"):
        store.add(engine)
    engine.with_suffix(".json").unlink()
    with pytest.raises(SpecError):
        store.add(engine)
    assert not (tmp_path / "store" / "engines").exists()


def test_an_engine_that_is_not_there_is_called_so(store: EngineStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "nowhere.engine", tmp_path / "empty"):
        with pytest.raises(EngineError, match="no engine at"):
            store.add(path)


def test_the_first_engine_is_trusted_and_the_second_has_to_prove_itself(
    store: EngineStore, engine: Path, color_engine: Path
) -> None:
    first, second = store.add(engine), store.add(color_engine)
    store.accept(first)
    assert store.state == StoreState(serving=first)
    store.accept(second)
    assert store.state == StoreState(serving=second, fallback=first, on_trial=True)
    store.confirm()
    assert store.state == StoreState(serving=second, fallback=first)
    assert store.roll_back() == StoreState(serving=first, refused=second.id)
    with pytest.raises(EngineError, match="no earlier engine"):
        store.roll_back()


def test_an_engine_that_never_outlives_its_trial_is_rolled_back(
    store: EngineStore, engine: Path, color_engine: Path
) -> None:
    first, second = store.add(engine), store.add(color_engine)
    store.accept(first)
    store.accept(second)
    for _ in range(MAX_UNCONFIRMED_STARTS):
        assert store.note_start().serving == second
    assert store.note_start() == StoreState(serving=first, refused=second.id)
    assert store.note_start().serving == first


def test_an_offer_is_taken_once_and_cleaning_spares_what_is_needed(
    store: EngineStore, engine: Path, color_engine: Path
) -> None:
    first, second = store.add(engine), store.add(color_engine)
    store.accept(first)
    store.offer(second)
    store.clean()
    assert store.take_offer() == second
    assert store.take_offer() is None
    store.clean()
    assert store.path(first).is_file()
    assert not store.path(second).exists()


def test_a_record_that_nobody_wrote_is_an_error_with_a_remedy(
    store: EngineStore, engine: Path, tmp_path: Path
) -> None:
    store.accept(store.add(engine))
    (tmp_path / "store" / "state.json").write_text("{}[")
    with pytest.raises(EngineError, match="cmlr-edge service update"):
        _ = store.state


@pytest.mark.parametrize(
    "record",
    [
        {"id": "../../../../tmp", "file": "model.onnx"},
        {"id": "..", "file": "model.onnx"},
        {"id": "/etc", "file": "passwd"},
        {"id": "0123456789ABCDEF", "file": "model.onnx"},
        {"id": "0123456789abcdef\n", "file": "model.onnx"},
        {"id": "0123456789abcdef", "file": "../model.onnx"},
        {"id": "0123456789abcdef", "file": "/etc/passwd"},
        {"id": "0123456789abcdef", "file": ".onnx"},
        {"id": "0123456789abcdef", "file": "model.json"},
        {"id": "0123456789abcdef", "file": ""},
        {"id": 5, "file": "model.onnx"},
        [],
    ],
)
def test_a_record_that_leads_out_of_the_store_is_refused(
    store: EngineStore, engine: Path, tmp_path: Path, record: object
) -> None:
    added = store.add(engine)
    store.accept(added)
    offer, state = tmp_path / "store" / "offer.json", tmp_path / "store" / "state.json"
    offer.write_text(json.dumps(record))
    store.clean()  # as at every start of the service
    assert store.checked(added).content == engine.read_bytes()
    with pytest.raises(EngineError, match="was not written by this program"):
        store.take_offer()
    assert not offer.exists()
    state.write_text(json.dumps({"serving": record}))
    with pytest.raises(EngineError, match="cannot be used"):
        _ = store.state


def test_what_was_checked_is_what_is_loaded(
    store: EngineStore, engine: Path, color_engine: Path
) -> None:
    added = store.add(engine)
    pair = store.checked(added)
    store.path(added).write_bytes(color_engine.read_bytes())  # after the check, before the load
    store.path(added).with_suffix(".json").write_bytes(b"{}")
    with Recognizer.from_pair(pair) as recognizer:
        assert recognizer.labels == ModelSpec.load(engine.with_suffix(".json")).labels
    assert "was changed" in reason_of(
        start_check(store.path(added), None, timeout_s=60, identity=added.id)
    )
    with pytest.raises(EngineError, match="was changed"):
        store.checked(added)


def test_cleaning_deletes_what_is_no_engine_and_nothing_that_a_link_leads_to(
    store: EngineStore, engine: Path, tmp_path: Path
) -> None:
    added = store.add(engine)
    store.accept(added)
    engines = tmp_path / "store" / "engines"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("mine")
    (engines / "link").symlink_to(tmp_path / "elsewhere")
    (engines / "fedcba9876543210").symlink_to(tmp_path / "elsewhere")
    (engines / "dead").symlink_to(tmp_path / "nowhere")
    (engines / "file").write_text("x")
    (engines / ".half").mkdir()
    store.clean()
    assert [item.name for item in engines.iterdir()] == [added.id]
    assert (tmp_path / "elsewhere" / "precious").read_text() == "mine"


@pytest.mark.parametrize("suffix", [".onnx", ".json", ".onnx.sig"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(
    store: EngineStore, engine: Path, suffix: str
) -> None:
    added = store.add(engine)
    place = store.path(added).with_suffix(suffix)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    with pytest.raises(EngineError, match="not a file"):
        store.checked(added)


def test_a_model_is_opened_once_and_its_spec_before_and_behind_it(engine: Path) -> None:
    script = """
import sys
from cmlr_edge import Recognizer
opened = []
# A file that is opened in a way of its own is told twice, once without a mode.
sys.addaudithook(lambda event, given: event == "open" and given[1] and opened.append(str(given[0])))
Recognizer.from_engine(sys.argv[1]).close()
print([opened.count(name) for name in sys.argv[1:]])
"""
    command = [sys.executable, "-c", script, str(engine), str(engine.with_suffix(".json"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 2]\n"  # so that both are of one export


@pytest.mark.slow
def test_a_kill_at_any_step_of_an_update_leaves_one_valid_engine_and_the_update_can_be_repeated(
    tmp_path: Path, engine: Path, color_engine: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILL_AT_EVERY_STEP, tmp_path / "store", engine, color_engine],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps = [line.split() for line in done.stdout.splitlines()]
    assert all(one_of_both == "True" for _, one_of_both, _ in steps)
    changed = [new == "True" for _, _, new in steps]
    assert changed == sorted(changed)  # the old one, up to one step, and the new one from there on
    assert len(changed) > 20
    assert 5 < changed.index(True) < len(changed) - 1


def test_the_state_is_plain_json(store: EngineStore, engine: Path, tmp_path: Path) -> None:
    added = store.add(engine)
    store.accept(added)
    record = json.loads((tmp_path / "store" / "state.json").read_text())
    assert record["serving"] == {"id": added.id, "file": "model.onnx"}
    shutil.rmtree(tmp_path / "store")
    assert store.state == StoreState()


def test_of_two_offers_the_newest_is_taken_and_the_other_is_told(
    store: EngineStore, tmp_path: Path
) -> None:
    first, second = (store.add(scaled_engine(tmp_path / str(n), 1 / n)) for n in (1, 2))
    store.offer(first)
    store.offer(second)
    told = json.loads(store.report_path(first).read_text())
    assert (told["accepted"], second.id in told["reason"]) == (False, True)
    assert store.take_offer() == second
    store.offer(first)
    store.offer(second, again=True)  # put back by a service that ends
    assert not json.loads(store.report_path(second).read_text())["accepted"]
    assert not store.report_path(first).exists()
    assert store.take_offer() == first
    store.offer(first, again=True)
    assert store.take_offer() == first


def test_an_update_without_a_service_is_newer_than_what_waits_to_be_tried(
    store: EngineStore, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmlr_edge.cli import service

    old, new = (scaled_engine(tmp_path / str(n), 1 / n) for n in (1, 2))
    store.offer(store.add(old))
    monkeypatch.setattr(service, "start_check", lambda *_, **__: None)
    monkeypatch.setattr(service, "reason_of", lambda _: "")
    service.update_engine(device, new)
    assert store.state.serving == store.add(new)
    assert store.take_offer() is None


def test_what_is_no_folder_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("file", "link"):
        with pytest.raises(EngineError, match=rf"{name} is no folder, .*: move it away, or give"):
            EngineStore(tmp_path / name)
