"""The command line in processes of its own, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from cmlr_edge import demo_engine
from tests.cmlr_edge.cli.command import COMMAND, read_lines, run
from tests.conftest import solid, write_video
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]


def test_label_writes_all_outputs_and_a_summary(engine: Path, clip: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("o.jsonl", "o.mp4", "o.png")]
    done = run(
        "label", clip, "--engine", engine, "--out", outputs[0], "--overlay", outputs[1],
        "--contact-sheet", outputs[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout
    assert "50%" in done.stdout
    assert all(path.stat().st_size > 0 for path in outputs)
    lines = read_lines(outputs[0])
    names = [[item["label"] for item in line["labels"]] for line in lines]  # type: ignore[attr-defined]
    assert names == [["red"]] * 10 + [["blue"]] * 10


@pytest.mark.slow
def test_label_as_json_is_read_by_a_program(engine: Path, clip: Path) -> None:
    done = run("label", clip, "--engine", engine, "--json", "--max-frames", "15")
    record = json.loads(done.stdout)
    assert record["frames"] == 15
    shares = {item["label"]: item["share"] for item in record["labels"]}
    assert shares == pytest.approx({"red": 10 / 15, "blue": 5 / 15})
    assert set(record["latency_ms"]) == {
        "capture", "preprocess", "inference", "postprocess", "total",
    }  # fmt: skip


@pytest.mark.slow
def test_label_names_the_file_of_each_picture(engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), solid(255, 0, 0))
    done = run("label", tmp_path / "one.png", "--engine", engine, "--out", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    (line,) = read_lines(tmp_path / "o.jsonl")
    assert line["file"] == str(tmp_path / "one.png")
    assert line["time_s"] is None
    assert re.search(r"^ *1 picture *$", done.stdout, re.MULTILINE)
    assert "one.png" in done.stdout


@pytest.mark.slow
def test_a_run_without_labels_says_which_came_nearest(engine: Path, clip: Path) -> None:
    done = run("label", clip, "--engine", engine, "--threshold", "1", "--labels", "green")
    assert done.returncode == 0, done.stderr
    assert re.search(r"threshold: green came nearest, 0\.\d{3} of 1\.000", done.stdout)


def test_inspect_shows_the_model_and_notices_a_changed_file(engine: Path) -> None:
    done = run("inspect", engine, "--json")
    record = json.loads(done.stdout)
    assert record["labels"] == {"red": 0.5, "green": 0.5, "blue": 0.5}
    assert record["files"]["model.onnx"]["state"] == "ok"
    assert "green" in run("inspect", engine).stdout
    assert (
        "(0.229, 0.224, 0.225)" in run("inspect").stdout
    )  # no 0.22399999999999998 of the bundled one
    engine.write_bytes(engine.read_bytes() + b"x")
    done = run("inspect", engine.with_suffix(".json"), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["files"]["model.onnx"]["state"] == "changed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "word"),
    [("missing.mp4", "there is no"), ("text.mp4", "not a video"), ("empty", "no pictures")],
)
def test_a_wrong_source_is_one_line_and_leaves_no_output(
    engine: Path, tmp_path: Path, source: str, word: str
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    (tmp_path / "out").mkdir()
    done = run(
        "label", tmp_path / source, "--engine", engine, "--out", tmp_path / "out" / "o.jsonl",
        "--overlay", tmp_path / "out" / "o.mp4", "--contact-sheet", tmp_path / "out" / "o.png",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--out", "missing/o.jsonl"], "there is no folder"),
        (["--out", "clip.avi"], "belongs to the source"),
        (["--out", "engine/model.json"], "the model or the configuration"),
        (["--out", "a.mp4", "--overlay", "a.mp4"], "same name"),
        (["--overlay", "o.avi"], "end in .mp4"),
        (["--engine", "missing.onnx"], "no engine at"),
        (["--provider", "tpu"], "provider 'tpu' was asked for"),
        (["--threshold", "7"], r"[0, 1]"),
    ],
)
def test_wrong_options_are_one_line(
    engine: Path, clip: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    before = sorted(tmp_path.iterdir())
    if "--engine" not in options:
        options = ["--engine", str(engine), *options]
    done = run("label", "clip.avi", *options, cwd=clip.parent)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "long.avi"
    return write_video(path, [solid(200, 5, 5, (480, 640))] * 1500, fps=30)


def start_long_run(clip: Path, engine: Path, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """Label a long clip and return once some lines are written."""
    out = folder / "o.jsonl"
    command = [*COMMAND, "label", clip, "--engine", engine, "--out", out]
    command += ["--overlay", folder / "o.mp4"]
    process = subprocess.Popen([str(part) for part in command], text=True, stderr=subprocess.PIPE)
    wait_until(lambda: out.exists() and out.read_bytes().count(b"\n") > 20, process)
    return process, out


@pytest.mark.slow
def test_a_killed_run_leaves_whole_lines(long_clip: Path, engine: Path, tmp_path: Path) -> None:
    process, out = start_long_run(long_clip, engine, tmp_path)
    process.kill()
    process.communicate(timeout=30)
    lines = read_lines(out)
    assert 20 < len(lines) < 1500
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_finishes_its_outputs(
    long_clip: Path, engine: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process, out = start_long_run(long_clip, engine, tmp_path)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    # The frame being written when the signal came may be in one output and not yet in the other.
    assert abs(capture.get(cv2.CAP_PROP_FRAME_COUNT) - len(read_lines(out))) <= 1
    capture.release()


@pytest.mark.slow
def test_help_shows_examples() -> None:
    done = run("label", "--help")
    assert "cmlr-edge label street.mp4" in done.stdout
    assert run("--version").stdout.strip()


@pytest.mark.slow
def test_an_output_never_replaces_a_picture_of_the_folder(engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), solid(1, 2, 3, (20, 20)))
    before = (folder / "b.png").read_bytes()
    for option in ("--out", "--contact-sheet"):
        for source in (str(folder), str(folder / "*.png")):
            done = run("label", source, "--engine", str(engine), option, str(folder / "b.png"))
            assert done.returncode == 2
            assert "belongs to the source" in done.stderr
    assert (folder / "b.png").read_bytes() == before


@pytest.mark.slow
def test_an_engine_may_be_given_by_its_folder(engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), solid(1, 2, 3, (20, 20)))
    arguments = ("--engine", str(engine.parent), "--json")
    assert run("label", str(tmp_path / "a.png"), *arguments).returncode == 0
    assert run("inspect", str(engine.parent)).returncode == 0


def test_inspect_shows_the_bundled_model_with_its_whole_hash() -> None:
    done = run("inspect")
    assert done.returncode == 0
    assert hashlib.sha256(demo_engine().read_bytes()).hexdigest() in done.stdout
    assert re.search(r"read_out\W+plain", done.stdout)  # of a network without intervention
    assert "inference_context" not in done.stdout  # which says nothing of it


@pytest.mark.parametrize("arguments", [("--help",), ("label", "{clip}", "--engine", "{engine}")])
def test_a_report_that_cannot_be_written_is_one_line(
    engine: Path, clip: Path, arguments: tuple[str, ...]
) -> None:
    command = [*COMMAND, *(part.format(clip=clip, engine=engine) for part in arguments)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_letters_is_written_to(
    engine: Path, tmp_path: Path, encoding: str
) -> None:
    picture = tmp_path / "日本 é.png"
    picture.write_bytes(cv2.imencode(".png", solid(255, 0, 0))[1].tobytes())
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [*COMMAND, "label", str(picture), "--engine", str(engine)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert b"100%" in done.stdout


def test_too_little_memory_is_one_line() -> None:
    code = (
        "import cmlr_edge.cli as cli, cmlr_edge.cli.app as app\n"
        "def exhausted(**_): raise MemoryError\n"
        "app.app = exhausted\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is not enough memory")
    assert done.stderr.count("\n") == 1
