"""A signal, or a kill, while providers are measured: a runtime that hangs stands for one that takes long."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmlr_edge.cli.signals import Interruption
from tests.cmlr_edge.cli.command import COMMAND
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a home of its own, and a runtime that hangs where it is imported to be measured and says so."""
    package = tmp_path / "package"
    package.mkdir()
    told = tmp_path / "child"
    (package / "onnxruntime.py").write_text(
        "import os, sys, time\n"
        "def get_available_providers(): return ['CPUExecutionProvider']\n"
        "if sys.argv[0] == '-c':\n"
        f"    open({str(told)!r}, 'w').write(f'{{os.getpid()}}.')\n"
        "    time.sleep(300)\n"
    )
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": "", "PYTHONPATH": str(package)}
    return {**os.environ, **home}


class Start:
    """A command that measures providers."""

    def __init__(self, command: list[str], environment: dict[str, str], child: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *command, "--provider", "auto"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: child.is_file() and child.read_text().endswith("."), self.process)
        self.child = int(child.read_text()[:-1])

    def end(self, number: signal.Signals) -> tuple[int, str, float]:
        sent_s = time.monotonic()
        self.process.send_signal(number)
        _, words = self.process.communicate(timeout=30)
        return self.process.returncode, words, time.monotonic() - sent_s


@pytest.fixture
def started(
    request: pytest.FixtureRequest, engine: Path, tmp_path: Path, environment: dict[str, str]
) -> Iterator[Start]:
    command = [*request.param, "--engine", str(engine)]
    start = Start(command, environment, tmp_path / "child")
    yield start
    if start.process.poll() is None:
        start.process.kill()
        start.process.communicate()


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


_LABEL, _SERVE = ["label", "test://"], ["serve", "test://", "--port", "0"]


@pytest.mark.parametrize(
    ("started", "number", "code", "words"),
    [
        (_LABEL, signal.SIGTERM, 143, "interrupted before the first frame\n"),
        (_LABEL, signal.SIGINT, 130, "interrupted before the first frame\n"),
        (_SERVE, signal.SIGTERM, 0, ""),
    ],
    indirect=["started"],
)
def test_a_signal_while_providers_are_measured_ends_the_command_at_once(
    started: Start, number: signal.Signals, code: int, words: str, tmp_path: Path
) -> None:
    ended = started.end(number)
    assert ended[:2] == (code, words)
    assert ended[2] < 5  # what is measured takes 300
    assert not is_running(started.child)
    assert not [*(tmp_path / "home").rglob("*.json")]


@pytest.mark.parametrize("command", ["label", "serve", "run"])
def test_a_reload_asked_for_while_a_run_begins_ends_nothing_and_is_made_then(
    engine: Path, tmp_path: Path, environment: dict[str, str], command: str
) -> None:
    config = tmp_path / "device.toml"
    config.write_text(f'[engine]\npath = "{engine}"\n[[sources]]\nname = "door"\nuri = "test://"\n')
    given = [command, str(config)] if command == "run" else [command, "--config", str(config)]
    start = Start(
        [*given, *(["--port", "0"] if command == "serve" else [])], environment, tmp_path / "child"
    )
    start.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert start.process.poll() is None
    code, words, _ = start.end(signal.SIGTERM)
    assert code == (143 if command == "label" else 0), words


def test_what_a_signal_asked_for_before_the_run_is_done_with_it() -> None:
    interruption, done = Interruption(), list[str]()
    interruption.note_reload(signal.SIGHUP, None)
    interruption.calls(lambda: done.append("end"), lambda: done.append("reload"))
    assert done == ["reload"]
    interruption.note_reload(signal.SIGHUP, None)
    assert done == ["reload", "reload"]


@pytest.mark.parametrize("started", [_LABEL], indirect=True)
def test_a_kill_while_providers_are_measured_leaves_no_child_and_no_choice(
    started: Start, tmp_path: Path
) -> None:
    assert started.end(signal.SIGKILL)[0] == -signal.SIGKILL
    wait_until(lambda: not is_running(started.child), limit_s=5)
    files = [path.suffix for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert files == [".lock"]
