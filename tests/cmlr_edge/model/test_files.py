"""What is no file is written as it is, and stays what it is."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.model import files
from cmlr_edge.model.files import write_atomically, write_together
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


def test_a_pipe_that_nobody_reads_is_an_error_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PATIENCE_S", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    errors: list[OSError] = []
    writer = threading.Thread(target=_tried, args=(pipe, errors), daemon=True)
    writer.start()
    writer.join(10)
    os.close(reader)  # one that waits goes on
    assert [(type(error), error.strerror, error.filename) for error in errors] == [
        (TimeoutError, "nobody read it for 0 s", str(pipe))
    ]


def _tried(path: Path, errors: list[OSError]) -> None:
    try:
        write_atomically(path, bytes(300_000))
    except OSError as error:
        errors.append(error)


@pytest.mark.parametrize("before", [b"old", None])
def test_a_link_goes_on_to_lead_to_what_is_written(tmp_path: Path, before: bytes | None) -> None:
    folder, link, real = tmp_path / "disk", tmp_path / "link", tmp_path / "disk" / "report.json"
    folder.mkdir()
    if before is not None:
        real.write_bytes(before)
        read = real.open("rb")  # whoever reads it has all of the old one
    (tmp_path / "link of a link").symlink_to("disk/report.json")
    link.symlink_to("link of a link")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert [*folder.iterdir()] == [real]
    if before is not None:
        with read:
            assert read.read() == before


def test_what_a_killed_writer_left_goes_and_nothing_that_is_written(tmp_path: Path) -> None:
    def aged(name: str) -> Path:
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (1.0, 1.0))
        return tmp_path / name

    left = aged(".key.data.4711.part")
    stay = [aged(".other.4711.part"), aged("key.data.4711.part"), tmp_path / ".new.data.4711.part"]
    stay[-1].write_bytes(b"of one that may not have its lock yet")
    with files.whole_file(tmp_path / "live.data") as file:
        file.write(b"whole")
        file.flush()
        part = tmp_path / f".live.data.{os.getpid()}.part"
        os.utime(part, (1.0, 1.0))
        files.clear_parts(tmp_path / "*.data")
        assert part.is_file()
    assert (tmp_path / "live.data").read_bytes() == b"whole"
    assert not left.exists()
    assert all(path.is_file() for path in stay)


def test_a_link_to_no_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere/report.json")
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "link", b"new")
    assert caught.value.filename == str(tmp_path / "link")


def test_a_link_leads_to_its_video(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    sink = OverlayVideo(tmp_path / "link.mp4", None)
    sink.write(of_events())
    sink.close()
    assert (tmp_path / "link.mp4").is_symlink()
    assert {item.name for item in tmp_path.iterdir()} == {"link.mp4", "real.mp4"}


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


@pytest.mark.parametrize("size", [6_000, 60_000])  # less than is written at once, and more
def test_files_that_belong_together_are_all_written_or_none(tmp_path: Path, size: int) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_together({first: b"old", second: b"old"})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(OSError, match=f"File too large: '{second}'"):
            write_together({first: b"new", second: bytes(size)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        (first, second), b"old"
    )


def test_where_a_later_file_cannot_get_its_name_those_before_stay_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, new, spec = (tmp_path / name for name in ("model", "new", "spec"))
    write_together({model: b"old", spec: b"old"})
    replace = Path.replace

    def is_mounted(part: Path, path: Path) -> Path:
        if path.name == "spec":  # as in a container that was given this one file
            raise OSError(errno.EBUSY, "Device or resource busy", str(part), None, str(path))
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", is_mounted)
    for order in [(model, new, spec), (spec, new, model)]:
        with pytest.raises(OSError, match=f"busy: '{spec}'"):
            write_together(dict.fromkeys(order, b"new"))
        found = {path: path.read_bytes() for path in tmp_path.iterdir()}
        assert found == dict.fromkeys((model, spec), b"old")


def test_two_names_of_one_file_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"old")
    (tmp_path / "spec").symlink_to("model")
    with pytest.raises(OSError, match=f"same file as another name: '{tmp_path / 'model'}'"):
        write_together({tmp_path / "model": b"model", tmp_path / "spec": b"spec"})
    assert (tmp_path / "model").read_bytes() == b"old"


def test_the_next_write_clears_what_a_killed_one_left_beside_an_engine(tmp_path: Path) -> None:
    left, others = tmp_path / ".model[1].onnx.4711.part", tmp_path / ".model1.onnx.4711.part"
    for path in (left, others):
        path.write_bytes(b"half")
        os.utime(path, (1.0, 1.0))
    write_together({tmp_path / "model[1].onnx": b"whole"})
    assert {path.name for path in tmp_path.iterdir()} == {"model[1].onnx", others.name}
