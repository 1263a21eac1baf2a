"""Nothing reports on its user: no command looks up or calls anybody, or leaves a file in an empty home."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.examples.notebooks import cells_of

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Sealed:
    """A shell without a way out: attempts are written down, refused, and the home is empty."""

    library: Path
    log: Path
    home: Path

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        # Of what continuous integration sets nothing: runtimes keep quiet there by themselves.
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",  # several tests run at once
            "LD_PRELOAD": str(self.library),
            "NETWORK_LOG": str(self.log),
        }
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, **options)

    def run(self, *command: str, **options: Any) -> int:
        with self.start(*command, **options) as process:
            return process.wait(timeout=540)

    def attempts(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def files(self) -> list[str]:
        """All but the choices of `--provider auto`, which are this project's own."""
        found = [path.relative_to(self.home) for path in self.home.rglob("*") if path.is_file()]
        return [str(path) for path in found if path.parent != Path(".cache/cmlr_edge/providers")]


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, so nothing can watch the sockets")
    library = tmp_path / "no_network.so"
    source = Path(__file__).with_name("no_network.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    (tmp_path / "home").mkdir()
    return Sealed(library, tmp_path / "attempts.txt", tmp_path / "home")


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]


def test_the_watch_sees_attempts(sealed: Sealed) -> None:
    code = (
        "import socket\n"
        "for action in (lambda: socket.create_connection(('192.0.2.1', 80), 1),\n"
        "               lambda: socket.getaddrinfo('example.org', 80),\n"
        "               lambda: socket.socket(2, 2).sendto(b'x', ('192.0.2.2', 53))):\n"
        "    try: action()\n"
        "    except OSError: pass\n"
    )
    assert sealed.run(*python(code)) == 0
    assert sealed.attempts() == ["connect 192.0.2.1", "look up example.org", "connect 192.0.2.2"]


@pytest.mark.parametrize("runtime", ["openvino_telemetry", "onnxruntime"])
def test_runtimes_alone_would_report(sealed: Sealed, runtime: str) -> None:
    """What is turned off is there, or the tests below show nothing."""
    package = pytest.importorskip(runtime)
    if runtime == "onnxruntime" and not hasattr(package, "disable_telemetry_events"):
        pytest.skip("this ONNX Runtime has nothing to turn off")
    code = f"import {runtime.removesuffix('_telemetry')} as runtime\n"
    code += "getattr(runtime, 'SessionOptions', object)()"
    assert sealed.run(*python(code)) == 0
    assert sealed.attempts() or sealed.files()


@pytest.mark.parametrize("provider", ["cpu", "openvino", "auto"])
def test_label_reports_nothing(
    sealed: Sealed, engine: Path, clip: Path, tmp_path: Path, provider: str
) -> None:
    command = ["label", str(clip), "--engine", str(engine), "--provider", provider]
    command += ["--out", str(tmp_path / "out.jsonl"), "--json"]
    assert sealed.run(sys.executable, "-m", "cmlr_edge", *command) == 0
    assert (sealed.attempts(), sealed.files()) == ([], [])


def test_an_archive_reports_nothing(
    sealed: Sealed, engine: Path, clip: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "labels")
    command = ["archive", str(clip), "--out", out, "--engine", str(engine), "--workers", "1"]
    assert sealed.run(sys.executable, "-m", "cmlr_edge", *command) == 0
    sheet = ["archive", "show", out, "--out", str(tmp_path / "sheet.png")]
    assert sealed.run(sys.executable, "-m", "cmlr_edge", *sheet) == 0
    assert (sealed.attempts(), sealed.files()) == ([], [])


def test_a_cluster_that_is_joined_reports_no_use() -> None:
    pytest.importorskip("ray")
    code = (
        "import cmlr_edge\n"
        "from ray._common.usage import usage_lib\n"
        "raise SystemExit(usage_lib.usage_stats_enabled())"
    )
    environment = {name: os.environ[name] for name in ("PATH",)}
    assert subprocess.run(python(code), env=environment, check=False).returncode == 0


QUICK_BENCH = ["--duration", "0.1", "--warmUp", "0", "--batches", "", "--streams", ""]


@pytest.mark.parametrize("command", ["doctor", "verify", "inspect", "bench"])
def test_looking_at_an_engine_reports_nothing(sealed: Sealed, engine: Path, command: str) -> None:
    more = {"doctor": [], "bench": [str(engine), *QUICK_BENCH]}.get(command, [str(engine)])
    assert sealed.run(sys.executable, "-m", "cmlr_edge", command, *more) in {0, 1}
    assert (sealed.attempts(), sealed.files()) == ([], [])


@pytest.mark.parametrize("command", ["serve", "run"])
def test_a_service_reports_nothing(
    sealed: Sealed, engine: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ["test://", "--engine", str(engine), "--out", str(out)]
    if command == "serve":
        arguments += ["--port", str(free_port())]
    else:
        file = tmp_path / "device.toml"
        file.write_text(f'[engine]\npath = "{engine}"\n[[sources]]\nname = "a"\nuri = "test://"\n')
        arguments = [str(file), "--out", str(out)]
    with sealed.start(sys.executable, "-m", "cmlr_edge", command, *arguments) as process:
        deadline_s = time.monotonic() + 60
        while not (out.exists() and out.stat().st_size > 1000) and process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in {0, 143}
    assert (sealed.attempts(), sealed.files()) == ([], [])


@pytest.mark.slow
@pytest.mark.timeout(600)  # a training, twice, and an export
def test_training_and_export_report_nothing(sealed: Sealed, tmp_path: Path) -> None:
    """Nor does the notebook, which does both and labels a picture then."""
    with (tmp_path / "said.txt").open("w+") as out:
        assert sealed.run(*python(cells_of("train_your_own.ipynb")), stdout=out) == 0
        out.seek(0)
        said = out.read()
    assert "decisions that differ: 0" in said
    rows = [line.split() for line in said.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["disc", "square", "cross"]
    assert any("said" in row and "there" in row for row in rows)  # what a reader sees makes sense
    assert (sealed.attempts(), sealed.files()) == ([], [])
