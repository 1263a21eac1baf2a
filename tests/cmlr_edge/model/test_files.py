"""What is no file is written as it is, and stays what it is."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.model.files import write_atomically
from cmlr_edge.sinks.overlay import OverlayVideo
from tests.cmlr_edge.sinks.results import of_events


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, content = tmp_path / "pipe", os.urandom(300_000)  # more than a pipe holds
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device"):  # nobody reads: an error, and no waiting
        write_atomically(pipe, content)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    for _ in range(500):
        try:
            write_atomically(pipe, content)
            break
        except OSError:
            reader.join(0.01)
    reader.join(10)
    assert got == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [*tmp_path.iterdir()] == [pipe]


def test_a_full_device_is_an_error_and_stays_a_device() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("/dev/full IS NO DEVICE HERE: writing to one is NOT TESTED")
    with pytest.raises(OSError, match="No space"):
        write_atomically(Path("/dev/full"), b"x")
    assert Path("/dev/full").is_char_device()


def test_a_video_is_written_to_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    sink = OverlayVideo(tmp_path / "pipe.mp4", None)
    with pytest.raises(OutputError, match="a video needs a file"):
        sink.write(of_events())
    assert stat.S_ISFIFO((tmp_path / "pipe.mp4").stat().st_mode)
