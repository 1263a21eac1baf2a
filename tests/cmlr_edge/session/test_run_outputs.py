"""No output writes what the run itself is made of, or takes the place of one that stays."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, SourceSettings
from cmlr_edge.sinks.base import SourceHealth
from cmlr_edge.sinks.opening import SinkSettings
from tests.cmlr_edge.cli.command import run

CONFIG = """
[engine]
path = "{engine}"
{signature}
[[sources]]
name = "door"
uri = "test://?fps=5&size=128x96"
[[sinks]]
kind = "events"
path = "{output}"
[[sinks]]
kind = "mqtt"
url = "mqtts://me:${{file:password}}@127.0.0.1:1/x"
ca_file = "ca.pem"
"""


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["run"], "site.toml"),
        (["label", "--config"], "./site.toml"),
        (["serve", "--port", "0", "--config"], "other_name.toml"),
        (["run"], "ca.pem"),
        (["run"], "key.pem"),
        (["run"], "password"),
    ],
)
def test_an_output_that_would_write_into_what_the_run_is_made_of_is_refused(
    command: list[str], output: str, engine: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    signature = 'require_signature = "key.pem"' if output == "key.pem" else ""
    site.write_text(CONFIG.format(engine=engine, output=output, signature=signature))
    (tmp_path / "other_name.toml").symlink_to(site)
    read = [tmp_path / name for name in ("ca.pem", "key.pem", "password")]
    for path in read:
        path.write_text("kept")
    before = site.read_bytes()

    done = run(*command, site)

    assert done.returncode == 2
    assert "belongs to the source, the model or the configuration" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert site.read_bytes() == before
    assert {path.read_text() for path in read} == {"kept"}
    assert not list(tmp_path.glob("*.1"))


FIRST = SinkSettings("mqtt", url="mqtt://127.0.0.1:1/site")
SECOND = SinkSettings("mqtt", url="mqtt://127.0.0.1:2/site")  # another broker of the same machine


def planned(engine: Path, *sinks: SinkSettings) -> SessionConfig:
    door = SourceSettings("test://?fps=5&size=128x96", name="door")
    return SessionConfig(EngineSettings(path=str(engine)), (door,), sinks)


def test_a_reload_closes_no_output_that_stays(engine: Path, tmp_path: Path) -> None:
    health = [SourceHealth("door", is_ok=True)]
    with Session(planned(engine, FIRST, SECOND), folder=tmp_path) as session:
        first, second = session.outputs.guards[:2]
        changed = replace(SECOND, url="mqtt://user@127.0.0.1:2/site")
        with ExitStack() as undo:
            session.apply(planned(engine, FIRST, changed), None, undo)
        session.outputs.watch(health)  # lets the new one begin
        session.outputs.guards[1].close()
        assert session.outputs.guards[0] is first
        assert second._closed
        assert not first._closing


def test_a_reload_that_fails_closes_no_output(engine: Path, tmp_path: Path) -> None:
    with Session(planned(engine, FIRST), folder=tmp_path) as session:
        changed = replace(FIRST, url="mqtt://user@127.0.0.1:1/site")
        bad = SinkSettings("webhook", url="http://x/", ca_file="none.pem")
        with pytest.raises(OutputError), ExitStack() as undo:
            session.apply(planned(engine, changed, bad), None, undo)
        assert not session.outputs.guards[0]._closing


def test_outputs_that_are_alike_go_on_each_by_itself(engine: Path, tmp_path: Path) -> None:
    hook = SinkSettings("webhook", url="http://127.0.0.1:1/")
    with Session(planned(engine, hook, hook), folder=tmp_path) as session:
        before = session.outputs.guards
        for sinks in ([hook, hook, hook], [hook]):
            with ExitStack() as undo:
                session.apply(planned(engine, *sinks), None, undo)
            now = session.outputs.guards
            assert len({*now}) == len(now) == len(sinks)
            assert now[:2] == before[: len(sinks)]
            assert [guard._closing for guard in now] == [False] * len(sinks)
        assert before[1]._closed


def test_a_topic_is_one_outputs(engine: Path, tmp_path: Path) -> None:
    same = SinkSettings("mqtt", url="mqtt://user:secret@127.0.0.1:1/site/", home_assistant="ha")
    with (
        pytest.raises(OutputError, match=r"two outputs write to site at 127\.0\.0\.1: leave one"),
        Session(planned(engine, FIRST, same), folder=tmp_path),
    ):
        pass
