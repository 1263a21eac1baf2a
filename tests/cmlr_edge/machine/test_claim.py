"""One program at a time in a folder: the second is told who holds it, and nobody dead is in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.claim import IN_USE, Claim

_HOLD = """
import sys, pathlib
from cmlr_edge.errors import OutputError
from cmlr_edge.machine.claim import Claim
try:
    claim = Claim(pathlib.Path(sys.argv[1]), "it")
except OutputError as error:
    print(error, flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
    claim.close()
"""


def program(path: Path, *before: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def line(other: subprocess.Popen[str]) -> str:
    assert other.stdout is not None
    return other.stdout.readline().strip()


def end(other: subprocess.Popen[str]) -> None:
    other.communicate(timeout=20)


def test_a_second_program_is_told_who_holds_it_and_one_that_was_killed_is_not_in_the_way(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / IN_USE
    first = program(path)
    assert line(first) == "held"
    with pytest.raises(OutputError, match=rf"it is in use by process {first.pid} on ") as told:
        Claim(path, "it")
    assert platform.node() in str(told.value)
    assert "\n" not in str(told.value)
    first.send_signal(signal.SIGKILL)
    end(first)
    assert path.exists()  # nobody took it away
    with Claim(path, "it"), Claim(path, "it"):  # for others of the same program
        second = program(path)
        assert str(os.getpid()) in line(second)
        end(second)
    assert not path.exists()
    third = program(path)
    assert line(third) == "held"
    end(third)


def test_what_says_who_is_looked_at_by_people_alone(tmp_path: Path) -> None:
    """A number that is a living process here may be a dead one of another container."""
    path = tmp_path / IN_USE
    path.write_text(f"process {os.getppid()} on {platform.node()}")
    Claim(path, "it").close()
    path.write_bytes(b"\x1b[2J\xff\n" * 10_000)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError) as told:
            Claim(path, "it")
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 2000


def test_a_program_in_another_container_is_seen(tmp_path: Path) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no process of its own numbers can be started here")
    other = program(tmp_path / IN_USE, *apart)
    assert line(other) == "held"
    with pytest.raises(OutputError, match="in use by process 1 on "):
        Claim(tmp_path / IN_USE, "it")
    end(other)
    Claim(tmp_path / IN_USE, "it").close()


def test_a_lock_file_that_is_deleted_is_taken_again_or_lost(tmp_path: Path) -> None:
    path = tmp_path / "f" / IN_USE
    claim = Claim(path, "it")
    shutil.rmtree(tmp_path / "f")
    claim.renew()
    other = program(path)
    assert "in use" in line(other)
    end(other)
    path.unlink()
    other = program(path)
    assert line(other) == "held"
    with pytest.raises(OutputError, match="in use"):
        claim.renew()
    claim.close()
    assert path.exists()  # it is the other's
    end(other)
    assert not path.exists()


@pytest.mark.parametrize("odd", ["pipe", "link", "folder"])
def test_a_name_that_is_something_else_is_left_alone(tmp_path: Path, odd: str) -> None:
    path, behind = tmp_path / IN_USE, tmp_path / "letter"
    behind.write_text("dear")
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "link":
        path.symlink_to(behind)
    else:
        path.mkdir()
    with Claim(path, "it") as claim:
        claim.renew()
    assert behind.read_text() == "dear"
    assert os.path.lexists(path)


def test_where_there_are_no_locks_or_no_room_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Claim(tmp_path / IN_USE, "it") as claim:
        claim.renew()

    def held(*_: object) -> None:
        raise PermissionError(errno.EACCES, "another client")

    monkeypatch.setattr(fcntl, "flock", held)  # as a network drive may say it
    with pytest.raises(OutputError, match="in use by"):
        Claim(tmp_path / IN_USE, "it")
    monkeypatch.setattr(os, "pwrite", refuse)  # a full disk
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with Claim(tmp_path / IN_USE, "it"):
        assert (tmp_path / IN_USE).read_bytes() == b""
    assert not (tmp_path / IN_USE).exists()


def test_folders_that_were_made_for_nothing_go_again(tmp_path: Path) -> None:
    Claim(tmp_path / "a" / "b" / IN_USE, "it").close()
    assert [*tmp_path.iterdir()] == []
    with Claim(tmp_path / "a" / "b" / IN_USE, "it"):
        (tmp_path / "a" / "b" / "model.onnx").touch()
    assert [*(tmp_path / "a" / "b").iterdir()] == [tmp_path / "a" / "b" / "model.onnx"]
