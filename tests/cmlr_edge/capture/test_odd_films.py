"""Files that hold more, or other things, than one video that anybody may see."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from cmlr_edge import open_source
from cmlr_edge.errors import CaptureError
from tests.cmlr_edge.capture.films import shade, turn, write_film


def encrypted(path: Path) -> Path:
    """An MP4 whose packets only a key opens."""
    pictures = [shade(20 * i) for i in range(5)]
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
    }
    return write_film(path, pictures, container_options=options)


def test_an_encrypted_film_is_called_so(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "film.mp4")
    with pytest.raises(CaptureError, match="is encrypted"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_of_several_videos_the_first_is_read_and_it_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"film{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for number, stream in enumerate(streams):
            stream.width, stream.height, stream.pix_fmt = 64 * (number + 1), 48, "yuv420p"
        for level in range(5):
            for number, stream in enumerate(streams):
                picture = shade(20 * level, (48, 64 * (number + 1)))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        for stream in streams:
            container.mux(stream.encode(None))
    with open_source(path) as source:
        assert {frame.image_bgr.shape for frame in source} == {(48, 64, 3)}
    assert "holds 2 videos: the first one is read" in caplog.text


def test_jpegs_as_a_server_sends_them_are_whole_in_a_file(tmp_path: Path) -> None:
    content = b""
    for level in range(5):
        data = cv2.imencode(".jpg", shade(40 * level))[1].tobytes()
        head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        content += head.encode() + data + b"\r\n"
    path = tmp_path / "film.mpjpeg"
    path.write_bytes(content + b"--cut--\r\n")
    with open_source(path) as source:
        assert len(list(source)) == 5
        assert source.damaged == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["list.m3u8", "list.ffconcat", "tone.wav"])
def test_what_holds_no_video_itself_is_told_in_words(tmp_path: Path, name: str) -> None:
    write_film(tmp_path / "film.ts", [shade(0)] * 5)
    texts = {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile film.ts\n",
    }
    if name in texts:
        (tmp_path / name).write_text(texts[name])
    else:
        with wave.open(str(tmp_path / name), "wb") as tone:
            tone.setparams((1, 2, 8000, 0, "NONE", ""))
            tone.writeframes(bytes(16000))
    told = "playlist" if name in texts else "holds sound alone, and no picture: name a video"
    with pytest.raises(CaptureError, match=told) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "corner"),  # where the left upper corner of what is stored is shown: down, right
    [
        ((-1, 0, 0, 1), (0, -1)),  # mirrored, as by a phone's camera on its front
        ((1, 0, 0, -1), (-1, 0)),
        ((0, 1, 1, 0), (0, 0)),
        ((0, -1, -1, 0), (-1, -1)),
        ((0, 1, -1, 0), (0, -1)),
        ((-1, 0, 0, -1), (-1, -1)),
        ((0.1, 0.99, -0.99, 0.1), (0, -1)),  # nearly a quarter
        ((0, 0, 0, 0), (0, 0)),  # which no player can follow
    ],
)
def test_a_film_is_turned_and_mirrored_as_it_asks_for(
    tmp_path: Path, matrix: tuple[float, float, float, float], corner: tuple[int, int]
) -> None:
    picture = shade(40, (96, 128))
    picture[:48, :64] = 220
    path = write_film(tmp_path / "film.mp4", [picture] * 3)
    turn(path, matrix)
    with open_source(path) as source:
        shown = next(iter(source)).image_bgr
    is_on_its_side = abs(matrix[1]) > abs(matrix[0])
    assert shown.shape == ((128, 96, 3) if is_on_its_side else (96, 128, 3))
    corners = {(down, right): shown[down, right, 0] > 128 for down in (0, -1) for right in (0, -1)}
    assert [place for place, is_bright in corners.items() if is_bright] == [corner]


@pytest.mark.parametrize("matrix", ["ycgco", "ictcp", "chroma-derived-c", "bt2020c"])
def test_colours_of_a_kind_that_nobody_converts_cost_no_frame_and_are_said(
    tmp_path: Path, matrix: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"colorspace": matrix}
    path = write_film(tmp_path / "film.mkv", [shade(128)] * 3, codec="ffv1", options=options)
    with open_source(path) as source:
        frames = [frame.image_bgr for frame in source]
    assert len(frames) == 3
    assert abs(frames[0].astype(int) - 128).max() < 8
    assert caplog.text.count("may be wrong") == 1


def test_jpegs_of_a_turned_camera_stand_upright_in_a_film(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: its first row is shown at the right
    picture = shade(40)
    picture[:24] = 220
    for number in range(3):
        PIL.Image.fromarray(picture).save(tmp_path / f"{number}.jpg", exif=exif)
    path = tmp_path / "film.mjpeg"
    path.write_bytes(b"".join((tmp_path / f"{number}.jpg").read_bytes() for number in range(3)))
    with open_source(path) as source:
        shown = [frame.image_bgr for frame in source]
    assert [image.shape for image in shown] == [(128, 96, 3)] * 3
    assert shown[0][:, -16:].mean() > 180
    assert shown[0][:, :64].mean() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_that_ask_to_be_mirrored_are(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    picture = shade(40)
    picture[:32, :32] = 220
    PIL.Image.fromarray(picture).save(tmp_path / "0.jpg", exif=exif, quality=95)
    path = tmp_path / "film.mjpeg"
    path.write_bytes((tmp_path / "0.jpg").read_bytes() * 3)
    with PIL.Image.open(tmp_path / "0.jpg") as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image).convert("L"))
    with open_source(path) as source:
        shown = [frame.image_bgr[..., 0] for frame in source]
    assert [image.shape for image in shown] == [expected.shape] * 3
    assert np.abs(shown[2].astype(int) - expected).mean() < 3
