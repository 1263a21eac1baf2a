"""What shells, supervisors and limits do to a program: streams that are closed, a folder that is gone, files that may not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cmlr_edge import cli
from cmlr_edge.backends import openvino
from cmlr_edge.capture.video import VideoFile
from cmlr_edge.errors import CaptureError, DependencyError
from cmlr_edge.machine.needed import needed
from tests.cmlr_edge.cli.command import COMMAND, read_lines


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script whose $0 is the command line; $1 and so on are the arguments."""
    command = ["bash", "-c", script.replace("CMLR", '"$0" -m cmlr_edge'), COMMAND[0]]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_harm_neither_the_run_nor_its_files(
    engine: Path, clip: Path, tmp_path: Path, closed: str
) -> None:
    script = f'CMLR label "$1" --engine "$2" --out "$3" --overlay "$4" {closed}'
    done = shell(script, clip, engine, tmp_path / "o.jsonl", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(read_lines(tmp_path / "o.jsonl")) == 20
    assert (tmp_path / "o.mp4").read_bytes()[4:8] == b"ftyp"
    assert shell(f'CMLR label nothing.mp4 --engine "$1" {closed}', engine).returncode == 2


def test_no_file_gets_the_number_of_a_closed_stream() -> None:
    code = (
        "import os, sys\nfrom cmlr_edge.cli import _open_closed_streams\n_open_closed_streams()\n"
        "number = os.open(os.devnull, os.O_RDONLY)\nsys.stdout.write('x'), sys.stderr.write('x')\n"
        "sys.exit(10 + number)"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False, timeout=60
    )
    assert done.returncode > 12


def test_a_sandbox_without_dev_is_no_trouble() -> None:
    code = (
        "import os, sys\nfrom cmlr_edge.cli import _open_closed_streams\nos.devnull = '/nothing'\n"
        "_open_closed_streams()\nsys.exit(10 + os.open('/', os.O_RDONLY))"
    )
    for closed in ("", "<&- >&-"):
        command = ["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode > 12, done.stderr) == (True, "")


@pytest.mark.slow
def test_a_folder_that_is_gone_is_no_trouble_where_it_is_not_needed(
    engine: Path, clip: Path, tmp_path: Path
) -> None:
    gone = f'mkdir "{tmp_path}/gone"; cd "{tmp_path}/gone"; rmdir ../gone; '
    assert shell(f'{gone} CMLR label "$1" --engine "$2"', clip, engine).returncode == 0
    done = shell(f'{gone} CMLR label "$1" --engine "$2" --out o.jsonl', clip, engine)
    assert done.returncode == 2
    assert done.stderr == "error: the current folder does not exist any more: go to another\n"


@pytest.mark.slow
def test_an_overlay_that_may_not_grow_is_told_in_a_line_and_without_a_traceback(
    engine: Path, clip: Path, tmp_path: Path
) -> None:
    done = shell('ulimit -f 1; CMLR label "$1" --engine "$2" --overlay "$3"', clip, engine, tmp_path / "o.mp4")  # fmt: skip
    assert done.returncode == 1
    assert "o.mp4: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.glob("o.mp4*")] == []


@pytest.mark.slow
def test_a_full_disk_under_stderr_ends_nothing(engine: Path, clip: Path) -> None:
    done = shell('CMLR label "$1" --engine "$2" --json --out /dev/full 2>/dev/full', clip, engine)
    assert done.returncode == 1  # of the results that are lost
    assert json.loads(done.stdout)["frames"] == 20
    assert shell("CMLR verify nothing 2>/dev/full").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", 'inspect "$1"'])
def test_whoever_reads_may_leave(engine: Path, command: str) -> None:
    done = shell(f"CMLR {command} | true; exit ${{PIPESTATUS[0]}}", engine)
    assert done.returncode in {0, 1}  # all was said before, or not
    assert done.stderr == ""


@pytest.mark.slow
def test_few_files_may_be_open(engine: Path, clip: Path, tmp_path: Path) -> None:
    done = shell('ulimit -n 32; CMLR label "$1" --engine "$2" --out "$3"', clip, engine, tmp_path / "o.jsonl")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_lines(tmp_path / "o.jsonl")) == 20


def test_what_may_not_be_read_is_not_called_damaged(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # whoever runs the tests may read everything
    with pytest.raises(CaptureError, match=r"clip\.avi cannot be read: Permission denied$"):
        VideoFile(clip)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "cannot use /a/b: Permission denied"),
        (FileNotFoundError(2, "No such file or directory"), "the current folder does not exist"),
        (OSError(28, "No space left on device"), "what was said last may be missing"),
    ],
)
def test_what_the_system_refuses_is_told_for_what_it_is(error: OSError, words: str) -> None:
    assert words in cli._why(error)


def test_where_memory_is_short_nobody_is_told_to_install_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "cv2.so: failed to map segment from shared object"
    with pytest.raises(DependencyError, match="not enough memory"), needed("it", "pip install it"):
        raise ImportError(said)
    with pytest.raises(DependencyError, match="pip install it"), needed("it", "pip install it"):
        raise ImportError("No module named it")

    class Core:
        def get_property(self, *_: str) -> None:
            raise RuntimeError(f"Cannot load library: {said}")

    monkeypatch.setattr(openvino, "shared_core", Core)
    assert openvino.supported_precisions() == ["f32"]


@pytest.mark.parametrize("said", ["can't start new thread", "Failed to launch worker thread: x"])
def test_where_no_thread_can_be_started_that_is_told_in_a_line(said: str) -> None:
    code = (
        "from cmlr_edge import cli; from cmlr_edge.cli import usage\n"
        f"def run_app(*_): raise (RuntimeError if 'start' in {said!r} else Exception)({said!r})\n"
        "usage.run_app = run_app; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is not enough memory for a thread, or no more are")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", ["0", "00", ""])
def test_an_error_is_told_on_a_terminal_that_says_no_width(columns: str) -> None:
    done = shell(f"COLUMNS={columns} CMLR verify nothing")
    assert (done.returncode, done.stderr[:6]) == (2, "error:")


@pytest.mark.parametrize("columns", ["0", "00"])
def test_likewise_of_a_program_beside_the_command(columns: str) -> None:
    code = (
        "from train.reporting import exit_on_error\nfrom cmlr_edge.errors import CmlrError\n"
        "with exit_on_error(): raise CmlrError('it')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "COLUMNS": columns}, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: it\n")
