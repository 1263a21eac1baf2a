"""Passwords and tokens that stand in the environment or in files, and in no message."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest

from cmlr_edge.errors import CaptureError, CmlrError, OutputError, SpecError
from cmlr_edge.redaction import redact, redact_place
from cmlr_edge.service.toml_lines import line_of_reference
from cmlr_edge.session import Session, SessionConfig, load_config
from cmlr_edge.session.config import EngineSettings, PageSettings, SourceSettings
from cmlr_edge.session.places import open_place, require_given
from cmlr_edge.session.secrets import put_in
from cmlr_edge.sinks.mqtt_client import parse_address
from cmlr_edge.sinks.opening import SinkSettings
from cmlr_edge.sinks.webhook import Webhook
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.conftest import solid

ODD = "p@ss/w:rd?#%é"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", ODD)
    monkeypatch.setenv("CAMERA", "rtsp://admin:secret@camera/1?a=b")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "token").write_text("a-token-of-some-length\n")
    (tmp_path / "beside.txt").write_text("beside\r\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rtsp://admin:${CAMERA_PASSWORD}@camera/1", "rtsp://admin:p%40ss%2Fw%3Ard%3F%23%25%C3%A9@camera/1"),
        ("${CAMERA}", "rtsp://admin:secret@camera/1?a=b"),
        ("${file:$CREDENTIALS_DIRECTORY/token}", "a-token-of-some-length"),
        ("https://hook/${file:beside.txt}?k=${file:beside.txt}", "https://hook/beside?k=beside"),
        ("nothing to put in, $HOME not either", "nothing to put in, $HOME not either"),
        ("v4l2src ! x name=${file:beside.txt} uri=rtsp://u:${CAMERA_PASSWORD}@c/", "v4l2src ! x name=beside uri=rtsp://u:p%40ss%2Fw%3Ard%3F%23%25%C3%A9@c/"),
        ("src uri=rtsp://c/ ${CAMERA_PASSWORD}\n${CAMERA_PASSWORD}", f"src uri=rtsp://c/ {ODD}\n{ODD}"),
    ],
)  # fmt: skip
def test_references_are_put_in_and_encoded_inside_an_address(
    tmp_path: Path, text: str, found: str
) -> None:
    assert put_in(text, tmp_path) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtsp://u:${NOBODY_SET_THIS}@c/", "no such environment variable"),
        ("${file:none}", "none cannot be read: No such file"),
        ("${file:run}", "run cannot be read: (not a file|Is a directory)"),
        ("${file:pipe}", "pipe cannot be read: not a file"),
        ("${file:two}", "one line"),
        ("${file:empty}", "one line"),
        ("${file:bytes}", "no text"),
        ("${file:long}", "long holds more than 65536 bytes"),
        ("${A B}", "expected"),
        ("${}", "expected"),
    ],
)
def test_what_cannot_be_put_in_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "two").write_text("hunter2\nhunter2\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "long").write_text("hunter2" * 9999)
    with pytest.raises(SpecError, match=said) as caught:
        put_in(text, tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sources_outputs_and_the_token_of_a_file_may_be_references(
    engine: Path, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", receiver.url)
    monkeypatch.setenv("PATTERN", "test://?fps=50&frames=20")
    config = SessionConfig(
        EngineSettings(path=str(engine)),
        (SourceSettings("${PATTERN}", "door", policy="every"),),
        (SinkSettings("webhook", url="${HOOK}"),),
        page=PageSettings(port=0, host="0.0.0.0", token="${file:run/token}"),
    )
    with Session(config, folder=tmp_path) as session:
        session.streams.start()
        assert session.streams.wait(30)
        names = {status.name for status in session.output_status()}
        assert names == {redact_place(receiver.url)}
        assert "${" not in str(names)
    assert receiver.requests[0]["Authorization"] == "Basic dXNlcjpwQHNz"
    assert "run/token" in str(session.config)
    assert "a-token-of" not in str(session.config)


def test_a_reference_in_a_file_is_no_path_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[engine]\npath = "m"\n[[sources]]\nname = "door"\nuri = "${CAMERA}"\n')
    assert load_config(path).sources[0].uri == "${CAMERA}"


def test_a_file_that_a_reference_names_lies_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "other")
    monkeypatch.setenv("DAY", "[monday]")  # a glob, were it not the name of a folder
    (tmp_path / "[monday]").mkdir()
    source = SourceSettings("${DAY}", "days")
    require_given(SessionConfig(sources=(source,)), tmp_path)
    cv2.imwrite(str(tmp_path / "[monday]" / "a.png"), solid(0, 0, 0, (40, 60)))
    place = open_place(SessionConfig(), source, tmp_path, [], (0, 1))
    assert place.source.num_frames == 1
    assert place.can_go_on(SessionConfig(), source, tmp_path)
    monkeypatch.setenv("DAY", "tuesday")
    with pytest.raises(CaptureError, match=str(tmp_path / "tuesday")):
        require_given(SessionConfig(sources=(source,)), tmp_path)


def test_the_line_of_a_reference_inside_a_text_of_several_lines_is_told() -> None:
    text = '# ${X}\nuri = """\nv4l2src ! # ${Y}\nuser-pw=${X} ! appsink"""\nother = "${X}"\n'
    assert line_of_reference(text.partition("other")[0], "${X}") == 4
    assert line_of_reference(text.partition("uri")[0], "${X}") == 0


def test_a_secret_on_the_command_line_is_a_reference_too(engine: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("HOOK_PASSWORD", "p@ss")
    address = receiver.url.replace("p%40ss", "${HOOK_PASSWORD}")
    command = ["label", "test://?fps=50&frames=20", "--engine", str(engine), "--webhook", address]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert receiver.requests[0]["Authorization"] == "Basic dXNlcjpwQHNz"
    monkeypatch.delenv("HOOK_PASSWORD")
    done = run(*command)
    assert done.returncode == 2
    assert "no such environment variable" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("uri", "url", "said"),
    [
        ("rtsp://u:${file:none}@c/1", "mqtt://b/door", "line 7: .*none cannot be read"),
        ("rtsp://c/1", "mqtt://u:${NOT_SET}@b/door", "line 11: .*no such environment variable"),
        ("missing.mp4", "mqtt://b/door", "there is no .*missing.mp4: give"),
    ],
)
def test_what_is_missing_is_told_before_a_model_is_loaded_and_where_it_stands(
    tmp_path: Path, uri: str, url: str, said: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"""# not in a remark: {uri} {url}

[engine]
path = "there is none"
[[sources]]
name = "door"
uri = "{uri}"

[[sinks]]
kind = "mqtt"
url = "{url}"
""")
    with (
        pytest.raises(CmlrError, match=said),
        Session(load_config(path), folder=tmp_path, file=path),
    ):
        pytest.fail("it has begun")


@pytest.mark.parametrize("kind", ["mqtt", "webhook"])
def test_a_secret_that_is_no_address_is_not_told(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("HOOK", "hunter2")
    path = tmp_path / "c.toml"
    path.write_text(
        f'engine.path = "{engine}"\nsources = [{{name = "a", uri = "test://"}}]\n'
        f'sinks = [{{kind = "{kind}", url = "${{HOOK}}"}}]\n'
    )
    with (
        pytest.raises(
            CmlrError, match=r"line 3: \$\{HOOK\} is put in, and is no address"
        ) as caught,
        Session(load_config(path), folder=tmp_path, file=path),
    ):
        pytest.fail("it has begun")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "mqtt://", "mqtts:///x"])
def test_what_is_said_of_an_address_outlasts_that_passwords_are_hidden(url: str) -> None:
    with pytest.raises(OutputError) as caught:
        (Webhook if url == "http://" else parse_address)(url)
    assert redact(str(caught.value)).endswith(" and the at sign as %2F %3F %23 %40")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example/services/T0/B0/hunter2", "https://hooks.example/***"),
        ("https://u:hunter2@host:8443/a?b=hunter2", "https://***@host:8443/***"),
        ("https://host:8443/", "https://host:8443"),
        ("https://host?hunter2", "https://host/***"),
        ("hooks.example/services/hunter2", "hooks.example/***"),
        ("https:/hooks.example/hunter2", "https:/***"),
        ("", ""),
    ],
)
def test_the_path_of_a_webhook_is_no_ones_business(url: str, shown: str) -> None:
    assert redact_place(url) == shown
