"""Configurations that only break when they are put to use: a run that works goes on, and says why in one line."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cmlr_edge.errors import SpecError
from cmlr_edge.session import Session
from cmlr_edge.session.config import load_config
from cmlr_edge.session.runner import Runner
from tests.cmlr_edge.sinks.authority import Authority
from tests.cmlr_edge.sinks.broker import Broker
from tests.conftest import free_port
from tests.waiting import wait_until

LONG = "x" * 5000
ODD = {
    "a pattern too long": (
        '[[sources]]\nname = "y"\nuri = "' + "[" * 3000 + '"',
        "File name too long",
    ),
    "a file of lines": (f'[[sinks]]\nkind = "jsonl"\npath = "{LONG}"', "File name too long"),
    "an overlay": (f'[[sinks]]\nkind = "overlay"\npath = "{LONG}.mp4"', "File name too long"),
    "a size without end": ('[[sinks]]\nkind = "csv"\npath = "t"\nrotate_mb = 1e306', "rotate_mb"),
    "a pipe for authorities": (
        '[[sinks]]\nkind = "webhook"\nurl = "https://a/"\nca_file = "pipe"',
        "not a file",
    ),
    "a pipe for a certificate": (
        '[[sinks]]\nkind = "webhook"\nurl = "https://a/"\ncert_file = "pipe"',
        "not a file",
    ),
    "no time to end": ("[limits]\ndrain_s = -1", "negative"),
    "no batch": ("[limits]\nmax_batch = 0", "at least 1"),
    "stuck at once": ("[limits]\nstuck_after_s = 0", "stuck_after_s"),
    "no port": ("[metrics]\nport = 70000", "0 to 65535"),
    "no port of the page": ("[page]\nport = -1", "0 to 65535"),
}

# What stands before and behind the rest, and a word of what is said.
LABELS = "labels name unknown labels ['rod']; did you mean red?"
UNKNOWN = {  # of the configuration's last lines, the one that names it, and what is said there
    'labels = ["blue",\n# not rod\n  "rod"]': (3, LABELS),
    "thresholds.rod = 0.3": (1, LABELS.replace("labels name", "thresholds name")),
    "[sources.stability.labels.rod]\nenter = 0.7": (
        1,
        LABELS.replace("labels name", "stability names"),
    ),
    "[stability.labels]\nrod.enter = 0.7": (2, LABELS.replace("labels name", "stability names")),
}
AT_THE_NEXT_START = {
    "a page for everybody": ("", '[page]\nhost = "0.0.0.0"\nport = 0', "give --token"),
    "metrics for everybody": ("", '[metrics]\nhost = "0.0.0.0"\nport = 9', "give --token"),
    "a token that is not there": ("", '[page]\nport = 0\ntoken = "${CMLR_NONE}"', "CMLR_NONE"),
    "reasons that no engine tells": ("explain = true\n", "", "explain"),
    "a place that no engine tells": ('place = "places"\n', "", "tells nothing of a place"),
}


@pytest.fixture
def text(engine: Path) -> str:
    source = '[[sources]]\nname = "door"\nuri = "test://?fps=50&size=128x96"\n'
    return f'threshold = 0.5\n[engine]\npath = "{engine}"\n{source}'


@pytest.fixture
def running(text: str, tmp_path: Path) -> Iterator[tuple[Session, Runner, Path]]:
    config = tmp_path / "device.toml"
    config.write_text(text)
    with Session(load_config(config), folder=tmp_path, file=config) as session:
        runner = Runner(session, reread=lambda file: load_config(file or config), file=config)
        thread = threading.Thread(target=runner.run)
        thread.start()
        yield session, runner, config
        runner.request_end()
        thread.join(20)
        assert not thread.is_alive()


def of_reloads(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, but for how the source is on a busy machine."""
    return [said for said in caplog.messages if not said.startswith("door: ")]


def refusal(runner: Runner, caplog: pytest.LogCaptureFixture) -> str:
    """What is said of a configuration that is reloaded and not taken over."""
    caplog.clear()
    runner.request_reload()
    wait_until(lambda: of_reloads(caplog))
    [said] = of_reloads(caplog)
    assert said.startswith("the configuration is not taken over: "), said
    return said


def test_what_the_next_start_would_refuse_is_refused_now(
    running: tuple[Session, Runner, Path], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, runner, config = running
    caplog.set_level(logging.ERROR)
    for name, (before, behind, word) in AT_THE_NEXT_START.items():
        config.write_text(f"{before}{text}{behind}\n")
        assert word in refusal(runner, caplog), name


@pytest.mark.parametrize("more", UNKNOWN)
def test_a_label_that_the_model_does_not_know_is_told_with_its_line(
    text: str, tmp_path: Path, more: str
) -> None:
    config = tmp_path / "device.toml"
    config.write_text(text + more)
    number, said = UNKNOWN[more]
    line = len(text.splitlines()) + number
    session = Session(load_config(config), folder=tmp_path, file=config)
    with pytest.raises(SpecError, match=re.escape(f"device.toml, line {line}: {said}")), session:
        pass


def test_a_camera_is_called_by_its_name_from_its_first_word_on(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wait(_session: Session, _place: object) -> None:
        deadline_s = time.monotonic() + 20
        while "reconnecting" not in caplog.text:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    monkeypatch.setattr(Session, "_add", wait)  # a camera may be faster than all that is opened
    config = tmp_path / "device.toml"
    config.write_text(re.sub("test://.*", f'http://127.0.0.1:{free_port()}/door"', text))
    with Session(load_config(config), folder=tmp_path):
        pass
    assert of_reloads(caplog) == []


def test_a_reload_says_that_it_is_done_and_what_waits_for_the_next_start(
    running: tuple[Session, Runner, Path], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, runner, config = running
    caplog.set_level(logging.INFO, "cmlr_edge.session.runner")
    config.write_text(f'{text}labels = ["rod"]')
    assert f"device.toml, line {len(text.splitlines()) + 1}: {LABELS}" in refusal(runner, caplog)
    caplog.clear()
    config.write_text(f"{text}[limits]\nmax_batch = 3")
    runner.request_reload()
    deadline_s = time.monotonic() + 20
    while len(of_reloads(caplog)) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert of_reloads(caplog) == [
        "changes of limits count from the next start on",
        "the configuration is taken over",
    ]


def test_clips_leave_a_source_alone_that_can_have_none(
    running: tuple[Session, Runner, Path], text: str
) -> None:
    session, _, config = running
    while (before := session.status()[0].frames) < 10:
        time.sleep(0.02)
    config.write_text(f'{text}[[sinks]]\nkind = "clips"\npath = "clips"\n')
    with ExitStack() as undo:
        session.apply(load_config(config), None, undo)
    assert session.status()[0].frames >= before


def test_no_configuration_ends_a_run_that_works(
    running: tuple[Session, Runner, Path], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, runner, config = running
    caplog.set_level(logging.ERROR)
    os.mkfifo(config.parent / "pipe")
    for name, (more, word) in ODD.items():
        config.write_text(f"{text}{more}\n")
        assert word in refusal(runner, caplog), name
    before = session.status()[0].frames
    wait_until(lambda: session.status()[0].frames >= before + 5)


@pytest.mark.parametrize("name", [name for name, (more, _) in ODD.items() if "[[" not in more])
def test_what_a_start_would_refuse_names_its_line(text: str, tmp_path: Path, name: str) -> None:
    config = tmp_path / "device.toml"
    config.write_text(f"{text}{ODD[name][0]}\n")
    line = len(text.splitlines()) + 1
    with pytest.raises(SpecError, match=rf"device\.toml, line {line}: .*{ODD[name][1]}"):
        load_config(config)


@pytest.mark.parametrize("value", ["1e308", "-0.1", "1.01"])
def test_one_threshold_for_all_is_a_share_too(text: str, tmp_path: Path, value: str) -> None:
    config = tmp_path / "device.toml"
    config.write_text(text.replace("threshold = 0.5", f"threshold = {value}"))
    with pytest.raises(SpecError, match=r"line 1: threshold is .*: expected 0 to 1"):
        load_config(config)


def test_a_reload_opens_anew_what_another_secret_or_certificate_leads_to_and_that_alone(
    running: tuple[Session, Runner, Path], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, runner, config = running
    caplog.set_level(logging.INFO, "cmlr_edge.session.runner")
    pem = Authority(config.parent / "authority").ca.read_text()
    for name, content in {"rate": "50", "door": "a", "yard": "a", "gate.pem": pem}.items():
        (config.parent / name).write_text(content)

    def reloaded() -> list[object]:
        caplog.clear()
        runner.request_reload()
        wait_until(lambda: "the configuration is taken over" in caplog.messages)
        sources = [place.source for place in session._places]
        return [*sources, *session.outputs.guards]

    hook = '\n[[sinks]]\nkind = "webhook"\nurl = "https://127.0.0.1:9/'
    text = text.replace("fps=50", "fps=${file:rate}")
    text += f'{hook}${{file:door}}"{hook}${{file:yard}}"\nca_file = "gate.pem"\n'
    config.write_text(text)
    first = reloaded()
    assert reloaded() == first
    for number, (name, content) in enumerate(
        {"rate": "25", "door": "b", "gate.pem": f"{pem}\n"}.items()
    ):
        (config.parent / name).write_text(content)
        now = reloaded()
        assert [a is b for a, b in zip(now, first, strict=True)] == [i != number for i in range(3)]
        first = now
    (config.parent / "rate").unlink()
    assert "device.toml, line 6: ${file:rate}" in refusal(runner, caplog)


def test_another_password_of_a_broker_leaves_the_sources_known_as_they_are(
    running: tuple[Session, Runner, Path],
    text: str,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, runner, config = running
    caplog.set_level(logging.INFO, "cmlr_edge.session.runner")
    url = f"mqtt://u:${{file:pw}}@127.0.0.1:{broker.port}/door"
    sink = f'\n[[sinks]]\nkind = "mqtt"\nurl = "{url}"\nhome_assistant = "homeassistant"\n'

    def told(password: str, labels: str, more: str = "") -> dict[str, str]:
        (config.parent / "pw").write_text(password)
        config.write_text(f"{text}labels = {labels}\n{more}{sink}")
        caplog.clear()
        runner.request_reload()
        wait_until(lambda: "the configuration is taken over" in caplog.messages)
        wait_until(lambda: broker.retained().get("door/availability") == "online")
        return broker.retained()

    yard = '[[sources]]\nname = "yard"\nuri = "test://"\n'
    first = told("first", '["red", "green"]', yard)
    wait_until(lambda: "door/yard/_health" in broker.retained())
    assert first["door/run"]
    told("second", '["red"]')
    wait_until(lambda: "door/yard/_health" not in broker.retained())
    wait_until(lambda: not [t for t in broker.retained() if "green" in t or "yard" in t])
    assert broker.availability() == ["online", "offline", "online"]
    assert broker.retained()["door/door/_health"] == "ON"
    assert "another program" not in caplog.text


def test_a_reload_says_what_it_opens_anew_and_that_the_environment_stays(
    running: tuple[Session, Runner, Path], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, runner, config = running
    caplog.set_level(logging.INFO)
    environment = config.with_suffix(".env")
    environment.write_text("PW=x")
    os.utime(environment, (1.0, 1.0))

    def reloaded() -> str:
        caplog.clear()
        runner.request_reload()
        wait_until(lambda: "the configuration is taken over" in caplog.messages)
        time.sleep(0.1)
        return caplog.text

    assert "count from the next start on" not in reloaded()
    os.utime(environment)
    config.write_text(text.replace("fps=50", "fps=25"))
    said = reloaded()
    assert (
        f"{environment} was changed: secrets of the environment count from the next start on"
        in said
    )
    assert "door: opened anew, as the configuration says" in said
