"""GStreamer pipelines, read by an OpenCV that has GStreamer; pip's has none."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import pytest

from cmlr_edge import open_source
from cmlr_edge.capture import is_live
from cmlr_edge.errors import CaptureError

pytestmark = pytest.mark.slow

SYSTEM_PYTHON = "/usr/bin/python3"
NEEDS = "import cv2; assert cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)"
ROOT = Path(__file__).parents[3]
BLUE = "videotestsrc is-live=true pattern=blue {} ! video/x-raw,width=160,height=120,framerate=50/1"


def read_pipelines(*pipelines: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [SYSTEM_PYTHON, "-m", "tests.cmlr_edge.capture.gstreamer_pipeline", *pipelines],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reports: list[dict[str, object]] = json.loads(done.stdout)
    return reports


def test_pipelines_are_read_opened_again_and_refused_where_they_give_no_bgr() -> None:
    if subprocess.run([SYSTEM_PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode:
        pytest.skip(
            "no OpenCV with GStreamer here, so PIPELINES ARE NOT TESTED: apt install python3-opencv "
            "gstreamer1.0-plugins-base"
        )
    bgr = "videoconvert ! video/x-raw,format=BGR ! appsink"
    endless, short, nv12, broken = read_pipelines(
        f"{BLUE.format('')} ! {bgr}",
        f"{BLUE.format('num-buffers=4')} ! {bgr}",
        f"{BLUE.format('')} ! videoconvert ! video/x-raw,format=NV12 ! appsink",
        "nosuchelement ! appsink",
    )
    assert endless["shapes"] == [[120, 160, 3, 255, 0, 0]] * 10
    assert (endless["error"], endless["reconnects"]) == ("", 0)
    assert short["shapes"] == [[120, 160, 3, 255, 0, 0]] * 10
    assert short["reconnects"]
    assert "format=BGR ! appsink" in str(nv12["error"])
    assert nv12["shapes"] == []
    assert "cannot be opened" in str(broken["error"])


def test_a_pipeline_needs_gstreamer_and_the_error_hides_its_password() -> None:
    pipeline = "rtspsrc location=rtsp://cam user-id=admin user-pw=hunter2 ! decodebin ! appsink"
    assert is_live(pipeline)
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer, so nothing is missing")
    with pytest.raises(CaptureError, match="needs OpenCV with GSTREAMER") as caught:
        open_source(pipeline)
    assert "hunter2" not in str(caught.value)
