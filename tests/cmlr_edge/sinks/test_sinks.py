from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.prediction import Latency, Prediction
from cmlr_edge.sinks.contact_sheet import ContactSheet
from cmlr_edge.sinks.drawing import text_width
from cmlr_edge.sinks.jsonl import JsonLines
from cmlr_edge.sinks.opening import check_files
from cmlr_edge.sinks.overlay import OverlayVideo
from tests.cmlr_edge.sinks.results import result
from tests.cmlr_edge.sinks.samples import frame, prediction


def test_a_jsonl_line_holds_exactly_the_documented_fields(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out.jsonl")
    sink.write(result(frame(3), prediction("dog", "cat")))
    sink.close()
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {
        "frame": 3,
        "time_s": 0.3,
        "labels": [{"label": "dog", "score": 0.75}, {"label": "cat", "score": 0.75}],
        "latency_ms": {"capture": 1.5, "preprocess": 2.0, "inference": 3.0, "postprocess": 0.25},
        "valid": True,
    }


def test_a_line_of_a_live_source_says_when_it_was_captured(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out.jsonl")
    sink.write(result(replace(frame(3), arrived_s=5.0), prediction()))
    sink.close()
    assert json.loads((tmp_path / "out.jsonl").read_text())["captured_at"] == 1.7e9


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out.jsonl")
    sink.write(result(frame(0), prediction()))
    assert (tmp_path / "out.jsonl").read_text().endswith("}\n")
    sink.close()


def test_an_invalid_prediction_is_still_valid_json(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "out.jsonl")
    nothing = Prediction(np.full(3, np.nan, np.float32), (), Latency(), 0.0, valid=False)
    sink.write(result(frame(0), nothing))
    sink.close()
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert record["valid"] is False
    assert record["labels"] == []


def test_a_full_disk_is_one_error() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no device /dev/full: a full disk is NOT TESTED")
    sink = JsonLines(Path("/dev/full"))
    with pytest.raises(OutputError, match="No space left"):
        sink.write(result(frame(0), prediction()))
    sink.close()


def test_the_overlay_has_the_size_and_length_of_the_clip_and_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "overlay.mp4"
    sink = OverlayVideo(path, fps=10)
    for i in range(5):
        sink.write(result(frame(i), prediction("dog")))
    assert not path.exists()
    sink.close()
    sink.close()
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 64
    capture.release()
    assert [p.name for p in tmp_path.iterdir()] == ["overlay.mp4"]


def test_an_overlay_deletes_what_a_killed_one_has_half_written(tmp_path: Path) -> None:
    left = tmp_path / ".[a].mp4.4711.part"
    left.write_bytes(b"half")
    os.utime(left, (1.0, 1.0))
    sink = OverlayVideo(tmp_path / "[a].mp4", fps=10)
    sink.write(result(frame(0), prediction("dog")))
    assert not left.exists()
    sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["[a].mp4"]


def test_the_overlay_draws_on_a_copy_and_takes_other_sizes(tmp_path: Path) -> None:
    sink = OverlayVideo(tmp_path / "overlay.mp4", fps=None)
    first, other = frame(0), frame(1, (33, 201))
    sink.write(result(first, prediction("dog")))
    sink.write(result(other, prediction("dog")))
    sink.close()
    assert (first.image_bgr == 9).all()


def test_an_overlay_whose_encoder_gets_no_thread_blames_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    sink = OverlayVideo(tmp_path / "overlay.mp4", fps=None)
    monkeypatch.setattr(sink, "_mux", refuse)
    with pytest.raises(OutputError, match=r"overlay\.mp4: there is not enough memory for a thread"):
        sink.write(result(frame(0), prediction("dog")))
    sink.close()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("count", [1, 5, 500])
def test_the_contact_sheet_shows_any_number_of_frames(tmp_path: Path, count: int) -> None:
    path = tmp_path / "sheet.png"
    sink = ContactSheet(path)
    for i in range(count):
        sink.write(result(frame(i), prediction("dog") if i < count // 2 else prediction()))
    sink.close()
    sheet = cv2.imread(str(path))
    assert sheet is not None
    rows = min(3, -(-min(count, 12) // 4))
    assert sheet.shape[0] > rows * 300
    assert sheet.shape[1] == 4 * 406 + 6


@pytest.mark.slow
@pytest.mark.parametrize("count", [200, 40_000], ids=["short", "longer than the bars resolve"])
def test_the_timeline_is_lit_for_the_share_of_time_the_label_was_there(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "sheet.png"
    sink = ContactSheet(path)
    shown = frame(0)
    for i in range(count):
        at = replace(shown, index=i, time_s=i / 10)
        sink.write(result(at, prediction("dog") if i < count // 4 else prediction()))
    sink.close()
    sheet = cv2.imread(str(path))
    assert sheet is not None
    bar = sheet[3 * 306 + 6 + 15, 190 : sheet.shape[1] - 12].astype(int)
    lit = np.abs(bar - 48).max(axis=1) > 20
    assert lit.mean() == pytest.approx(0.25, abs=0.01)
    assert lit[: len(lit) // 5].all()


def test_sinks_without_frames_leave_no_file(tmp_path: Path) -> None:
    for sink in (
        JsonLines(tmp_path / "a.jsonl"),
        OverlayVideo(tmp_path / "a.mp4", 10),
        ContactSheet(tmp_path / "a.png"),
    ):
        sink.close()
    assert not list(tmp_path.iterdir())


def test_outputs_with_another_suffix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"end in .mp4"):
        OverlayVideo(tmp_path / "a.avi", 10)
    with pytest.raises(OutputError, match=r"end in .png"):
        ContactSheet(tmp_path / "a.jpg")


def test_an_overlay_that_does_not_fit_on_the_disk_is_one_error(tmp_path: Path) -> None:
    # A size limit stands for the full disk; in a process of its own, since it cannot be lifted.
    script = """
import resource, sys
from tests.cmlr_edge.sinks.results import result
from dataclasses import replace
from pathlib import Path
import numpy as np
from cmlr_edge.errors import OutputError
from cmlr_edge.sinks.overlay import OverlayVideo
from tests.cmlr_edge.sinks.samples import frame, prediction
from dataclasses import replace
sink, noise = OverlayVideo(Path(sys.argv[1]), fps=10), np.random.default_rng(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    for i in range(60):
        image = noise.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        sink.write(result(replace(frame(i), image_bgr=image), prediction()))
    sink.close()
except OutputError as error:
    sink.close()
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "o.mp4")],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert "File too large; check" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_input_by_another_name_is_not_written_over(tmp_path: Path) -> None:
    source, link, other = (tmp_path / name for name in ("a.mp4", "b.jsonl", "c.csv"))
    source.touch()
    link.hardlink_to(source)
    with pytest.raises(OutputError, match="belongs to the source"):
        check_files([link], [source])
    other.symlink_to(link)
    with pytest.raises(OutputError, match="same name"):
        check_files([link, other], [])
    check_files([link, tmp_path / "new.csv"], [tmp_path / "d.mp4"])


def test_the_times_under_the_bars_stand_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float]] = []

    def put_text(
        _canvas: object, text: str, at: tuple[int, int], _color: object, size: int
    ) -> None:
        written.append((text, at[0] + text_width(text, size) // 2))

    sink = ContactSheet(tmp_path / "a.png")
    for number in range(222):
        sink.write(result(frame(number), prediction()))
    monkeypatch.setattr("cmlr_edge.sinks.contact_sheet.put_text", put_text)
    sink.close()
    times = [(float(text[:-2]), x) for text, x in written if text.endswith(" s")][-4:-1]
    (first, left), (middle, x), (last, right) = (
        times  # between both ends, where the text is centred
    )
    assert x == pytest.approx(left + (middle - first) / (last - first) * (right - left), abs=2)
