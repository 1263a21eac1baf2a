"""Files of lines in the field: other writers, earlier runs, small disks, and those who move files away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.sinks import opening
from cmlr_edge.sinks.jsonl import EventLines
from cmlr_edge.sinks.line_file import LineFile
from cmlr_edge.sinks.opening import SinkSettings, check_files, open_sink
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.sinks.results import of_events
from tests.cmlr_edge.sinks.samples import event
from tests.conftest import solid

KINDS = ("jsonl", "events", "csv")


def write(path: Path, *lines: str, keep_old: bool = False) -> None:
    file = LineFile(path, keep_old=keep_old)
    for line in lines:
        file.append(line)
    file.close()


def test_the_lines_of_the_run_before_are_put_aside_and_five_such_files_stay(tmp_path: Path) -> None:
    for number in range(8):
        write(tmp_path / "log", f"run {number}")
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"log": "run 7\n"} | {f"log.{i}": f"run {7 - i}\n" for i in range(1, 6)}
    write(tmp_path / "log", "and on", keep_old=True)
    assert (tmp_path / "log").read_text() == "run 7\nand on\n"


@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_lines_writes_over_an_earlier_run(
    tmp_path: Path, kind: str, append: bool
) -> None:
    settings = SinkSettings(kind, path="out", append=append)
    for _ in range(2):
        guard = open_sink(settings, folder=tmp_path, labels=("dog", "cat"), name_source=False)
        result = of_events(event(0))
        if kind != "events":
            result = result.__class__(result.frame, result.prediction, (), "door")
        guard.write(result)
        guard.close()
        assert guard.lost == 0
    lines = (tmp_path / "out").read_text().splitlines()
    header = kind == "csv"
    assert len(lines) == (2 if append else 1) + header
    assert (tmp_path / "out.1").exists() is not append


def test_a_table_of_other_columns_is_not_gone_on_with(tmp_path: Path) -> None:
    for header in ("a,b", "a,b", "a,c"):
        file = LineFile(tmp_path / "t.csv", header=header, keep_old=True)
        file.append("1,2")
        file.close()
    assert (tmp_path / "t.csv").read_text() == "a,c\n1,2\n"
    assert (tmp_path / "t.csv.1").read_text() == "a,b\n1,2\n1,2\n"


@pytest.mark.parametrize("name", ["log", "link", "hard"])
def test_a_file_that_another_writes_is_refused_whatever_it_is_called(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "hard").hardlink_to(path)
    first = LineFile(path, keep_old=True)
    first.append("mine")
    second = LineFile(tmp_path / name, keep_old=True)
    with pytest.raises(OutputError, match="another program writes it"):
        second.claim()
    with pytest.raises(OutputError, match="another program writes it"):
        second.append("yours")
    first.close()
    second.append("yours")
    second.close()
    assert path.read_text() == "before\nmine\nyours\n"


def test_another_process_is_refused_when_it_opens_and_may_follow_one_that_was_killed(
    tmp_path: Path,
) -> None:
    script = (
        "import sys; from pathlib import Path; from cmlr_edge.sinks.line_file import LineFile\n"
        "file = LineFile(Path(sys.argv[1])); file.append('theirs'); print('ready', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match="another program writes it"):
            open_sink(
                SinkSettings("jsonl", path="log"), folder=tmp_path, labels=(), name_source=False
            )
        other.kill()
    write(tmp_path / "log", "ours", keep_old=True)
    assert (tmp_path / "log").read_text() == "theirs\nours\n"


def test_two_outputs_of_one_run_never_share_a_file_nor_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")  # which is not there yet
    with pytest.raises(OutputError, match="same name"):
        check_files([tmp_path / "new", tmp_path / "link"], [])
    with pytest.raises(OutputError, match=r"new\.3 would hold older lines of "):
        check_files([tmp_path / "new.3", tmp_path / "link"], [])
    check_files([tmp_path / "new", tmp_path / "new.6"], [])


def test_lines_never_share_a_file_with_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = tmp_path / "printed"
    with printed.open("wb") as file:
        monkeypatch.setattr(opening, "_PRINTED", (file.fileno(),))
        for path in (printed, Path(f"/dev/fd/{file.fileno()}")):
            with pytest.raises(OutputError, match="that messages are printed to"):
                check_files([path], [])
    check_files([printed], [])  # it is closed


def test_a_file_that_may_not_be_written_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        LineFile(tmp_path / "log" / "no folder" / "log").append("x")
    assert list(tmp_path.iterdir()) == [tmp_path / "log"]


@pytest.mark.parametrize("way", ["moved", "deleted", "moved and created", "copied and emptied"])
@pytest.mark.parametrize("header", ["", "head"])
def test_lines_go_on_in_a_new_file_where_somebody_took_the_old_one(
    tmp_path: Path, way: str, header: str
) -> None:
    path, old = tmp_path / "log", tmp_path / "old"
    lines = LineFile(path, header=header)
    lines.append("first")
    lines.append("second")
    if way == "deleted":
        path.unlink()
    elif way == "copied and emptied":
        shutil.copy(path, old)
        os.truncate(path, 0)
    else:
        path.rename(old)
        if "created" in way:
            path.touch()
    lines.append("third")
    lines.close()
    begin = f"{header}\n" if header else ""
    assert path.read_text() == f"{begin}third\n"
    assert way == "deleted" or old.read_text() == f"{begin}first\nsecond\n"


def test_a_link_keeps_leading_to_the_file_when_it_grows_too_large(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "log").symlink_to(tmp_path / "disk" / "real")
    lines = LineFile(tmp_path / "log", rotate_bytes=20)
    for i in range(6):
        lines.append(f"line {i:04d}")
    lines.close()
    assert (tmp_path / "log").is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == [
        "real",
        "real.1",
        "real.2",
    ]


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from cmlr_edge.sinks.line_file import LineFile\n"
        "file = LineFile(Path('/dev/stdout'), rotate_bytes=10)\n"
        "for i in range(5): file.append('line %d' % i)"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
    assert (tmp_path / "out").read_text().splitlines() == [f"line {i}" for i in range(5)]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 KB that are full soon."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs may be mounted here, so a FULL DISK IS NOT TESTED on a real one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("rotate_bytes", [30_000, 100_000, 10**8])
def test_a_disk_too_small_for_all_files_costs_the_oldest_lines_and_never_the_newest(
    small_disk: Path, rotate_bytes: int
) -> None:
    lines = LineFile(small_disk / "log", rotate_bytes=rotate_bytes)
    for number in range(8000):
        lines.append(f"{number:099d}")
    lines.close()
    names = sorted(small_disk.iterdir(), reverse=True)
    found = [int(line) for name in names for line in name.read_text().splitlines()]
    assert found == list(range(found[0], 8000))
    assert len(found) > 1000


def test_a_disk_that_others_fill_costs_the_oldest_lines_and_writing_goes_on(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = LineFile(small_disk / "log", rotate_bytes=20_000)
    for number in range(1000):
        lines.append(f"{number:099d}")
    (small_disk / "ballast").write_bytes(b"x" * 2**16)
    with pytest.raises(OSError, match="No space"):
        (small_disk / "more").write_bytes(b"x" * 2**20)
    for number in range(1000, 2000):
        lines.append(f"{number:099d}")
    lines.close()
    assert int((small_disk / "log").read_text().splitlines()[-1]) == 1999
    assert "deleted the oldest lines" in caplog.text


def test_without_rotation_nothing_is_deleted_on_a_full_disk(small_disk: Path) -> None:
    (small_disk / "log.1").write_text("somebody's\n")
    lines = LineFile(small_disk / "log", keep_old=True)
    with pytest.raises(OutputError, match=r"full|No space"):
        deque(map(lines.append, (f"{number:099d}" for number in range(4000))), maxlen=0)
    lines.close()
    assert (small_disk / "log.1").read_text() == "somebody's\n"


def test_events_of_a_killed_run_are_told_from_those_of_the_next(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from cmlr_edge import Recognizer, Streams, open_source
from cmlr_edge.sinks.jsonl import EventLines
recognizer = Recognizer.from_engine(sys.argv[1], thresholds=0.01)
streams = Streams(recognizer)
sink = EventLines(Path(sys.argv[2]), keep_old=True)
streams.add(open_source("test://?fps=50"), name="door", sinks=[sink])
for result in streams.results():
    if 'start' in Path(sys.argv[2]).read_text():
        os.kill(os.getpid(), signal.SIGKILL)
"""
    from cmlr_edge import demo_engine

    command = [sys.executable, "-c", script, str(demo_engine()), str(tmp_path / "e.jsonl")]
    for _ in range(2):
        assert subprocess.run(command, check=False, timeout=60).returncode == -9
    records = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    begins = [record for record in records if record["kind"] == "begin"]
    assert [record["source"] for record in begins] == ["door", "door"]
    assert len({record["run"] for record in begins}) == 2
    second = records.index(begins[1])
    # What began before, and has no end, is of another run than the one that begins.
    assert records[0]["kind"] == "begin"
    assert {record["run"] for record in records[:second]} == {begins[0]["run"]}
    assert {record["run"] for record in records[second:]} == {begins[1]["run"]}
    assert "end" not in {record["kind"] for record in records}


def test_an_event_says_of_which_run_it_is(tmp_path: Path) -> None:
    sink = EventLines(tmp_path / "e.jsonl")
    sink.write(of_events(event(0), event(1)))
    sink.close()
    runs = {json.loads(line)["run"] for line in (tmp_path / "e.jsonl").read_text().splitlines()}
    assert len(runs) == 1
    assert len(runs.pop()) == 16


@pytest.mark.parametrize("kind", ["source", "engine", "output"])
def test_links_in_a_circle_are_one_line(engine: Path, tmp_path: Path, kind: str) -> None:
    circle = tmp_path / "circle.jpg"
    circle.symlink_to("circle.jpg")
    arguments: dict[str, str | Path] = {"source": "test://", "engine": engine, "output": "o.jsonl"}
    arguments[kind] = circle
    done = run(
        "label", arguments["source"], "--engine", arguments["engine"], "--out", arguments["output"],
        "--max-frames", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "kind", "wanted"),
    [
        ("--out", "jsonl", "file"),
        ("--events", "events", "file"),
        ("--csv", "csv", "file"),
        ("--overlay", "overlay", "file"),
        ("--snapshots", "snapshots", "folder"),
    ],
)
def test_standard_output_is_no_output(
    engine: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    kind: str,
    wanted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = run("label", clip, "--engine", engine, flag, "-")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"the output {kind} is called -" in done.stderr
    assert done.stderr.endswith(f"give the name of a {wanted}\n")
    assert sorted(tmp_path.iterdir()) == before
    assert run("label", clip, "--engine", engine, "--sink", "jsonl=-").returncode == 2
    with pytest.raises(
        SpecError, match=r"mqtt has path '-' and url '': give it a url, and no path"
    ):
        SinkSettings("mqtt", path="-")


def test_an_overlay_of_a_picture_is_told_what_draws_pictures(engine: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), solid(200, 0, 0))
    done = run("label", photo, "--engine", engine, "--overlay", tmp_path / "out.jpg")
    assert done.returncode == 2
    assert "--contact-sheet" in done.stderr


def test_the_summary_tells_folders_too(engine: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    done = run("label", clip, "--engine", engine, "--snapshots", folder, "--clips", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    count = sum(path.is_file() for path in folder.glob("**/*"))
    assert count > 0
    assert f"{count} files in {folder}" in done.stdout
    assert f"in {tmp_path / 'c'}" in done.stdout


@pytest.mark.parametrize("flag", ["--snapshots", "--clips", "--collect"])
def test_a_file_in_the_place_of_a_folder_is_told(
    engine: Path, clip: Path, tmp_path: Path, flag: str
) -> None:
    (tmp_path / "file").touch()
    done = run("label", clip, "--engine", engine, flag, tmp_path / "file")
    assert done.returncode == 2
    assert "it is a file, and a folder is wanted" in done.stderr


def test_a_name_that_no_disk_takes_is_not_repeated_at_length(engine: Path) -> None:
    done = run("label", "y" * 5000, "--engine", engine)
    assert done.returncode == 2
    assert len(done.stderr) < 500
    assert "5000 characters" in done.stderr


def test_lines_reach_whoever_reads_a_pipe_and_are_said_to_be_lost_where_nobody_does(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    file, readers = LineFile(path), [os.open(path, os.O_RDONLY | os.O_NONBLOCK)]
    try:
        file.append("one")
        assert os.read(readers[0], 99) == b"one\n"
        os.close(readers.pop())
        with pytest.raises(OutputError, match="nobody reads it; lines are lost until somebody"):
            file.append("two")
        readers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        file.append("three")
        assert os.read(readers[0], 99) == b"three\n"
    finally:
        file.close()
        os.close(readers.pop())


def test_lines_go_into_a_pipe_that_was_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    file, readers = LineFile(path), [os.open(path, os.O_RDONLY | os.O_NONBLOCK)]
    try:
        file.append("one")
        path.unlink()
        file.append("two")  # and no file is made, in which the next pipe would find its place taken
        assert not path.exists()
        os.mkfifo(path)
        readers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        file.append("three")
        assert [os.read(reader, 99) for reader in readers] == [b"one\ntwo\n", b"three\n"]
    finally:
        file.close()
        for reader in readers:
            os.close(reader)
