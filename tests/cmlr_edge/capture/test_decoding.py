"""Video files of many kinds: what is decoded, what is damaged, and what is left closed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from cmlr_edge import open_source
from cmlr_edge.capture import ffmpeg, opencv_film, video
from cmlr_edge.capture.ffmpeg import PyAvFilm
from cmlr_edge.capture.interlaced import interlaced_sample
from cmlr_edge.capture.opencv_film import OpenCvFilm, UnwrittenFrames, converts_interlaced
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from tests.cmlr_edge.capture.films import packets, shade, turn, write_film
from tests.cmlr_edge.cli.command import run

INTERLACED: dict[str, tuple[str, dict[str, Any]]] = {
    "H.264": ("a.mp4", {"codec": "libx264", "options": {"x264-params": "tff=1"}}),
    "MPEG-2": ("a.mpg", {"codec": "mpeg2video", "fps": 25}),
    "ProRes": ("a.mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    "in MPEG-TS": ("a.ts", {"codec": "libx264", "options": {"x264-params": "tff=1"}}),
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "HEVC of 10 bits": ("a.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le"}),
    "VP9": ("a.webm", {"codec": "libvpx-vp9"}),
    "VP9 with alpha": ("a.webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p"}),
    "AV1": ("a.mkv", {"codec": "libsvtav1"}),
    "MJPEG": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "full range": ("a.mp4", {"pix_fmt": "yuvj420p"}),
    "4:2:2": ("a.mkv", {"pix_fmt": "yuv422p"}),
    "4:4:4": ("a.mp4", {"pix_fmt": "yuv444p"}),
    "grey": ("a.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
    "BGRA": ("a.mkv", {"codec": "ffv1", "pix_fmt": "bgra"}),
    "16 bits": ("a.mkv", {"codec": "ffv1", "pix_fmt": "yuv444p16le"}),
    "GIF": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8"}),
    "audio longer than video": ("a.mkv", {"audio_s": 6.0}),
}


def frames_of(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return [*source]


def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "pyav", lambda: None)


def times(frames: list[Frame]) -> list[float]:
    return [frame.time_s for frame in frames if frame.time_s is not None]


@pytest.mark.parametrize("kind", INTERLACED)
def test_interlaced_video_is_not_black(tmp_path: Path, kind: str) -> None:
    name, how = INTERLACED[kind]
    path = write_film(tmp_path / name, [shade(200)] * 8, interlaced=True, **how)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = frames_of(path)
    assert len(frames) == 8
    assert all(frame.status == "ok" for frame in frames)
    assert all(abs(float(frame.image_bgr.mean()) - 200) < 3 for frame in frames)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_video_gives_all_frames_in_their_colours(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, how = KINDS[kind]
    if str(how.get("codec", "libx264")) not in av.codecs_available:
        pytest.skip(f"PyAV CANNOT MAKE {kind} here, so it is not tested")
    path = write_film(tmp_path / name, [shade(20 * i + 20) for i in range(10)], **how)
    frames = frames_of(path)
    shades = [float(frame.image_bgr.mean()) for frame in frames]
    tolerance = 22 if kind == "GIF" else 4
    assert shades == pytest.approx([20 * i + 20 for i in range(10)], abs=tolerance)
    assert all(frame.image_bgr.shape == (96, 128, 3) for frame in frames)
    assert times(frames) == pytest.approx([i / 10 for i in range(10)], abs=0.002)
    assert caplog.text == ""


def test_both_libraries_give_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (12, 16, 3), np.uint8) for _ in range(12)]
    pictures = [np.kron(item, np.ones((8, 8, 1), np.uint8)) for item in coarse]
    path = write_film(tmp_path / "a.mp4", pictures, options={"bf": "2"})
    ours, theirs = PyAvFilm(av, path), OpenCvFilm(path)
    assert (ours.fps, ours.num_frames) == (theirs.fps, theirs.num_frames) == (10, 12)
    for _ in range(12):
        one, other = ours.read(), theirs.read()
        assert one is not None
        assert other is not None
        assert np.array_equal(one.image_bgr, other.image_bgr)


@pytest.mark.parametrize("use_opencv", [False, True])
def test_a_film_of_a_turned_phone_stands_upright(
    tmp_path: Path, use_opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_opencv:
        without_pyav(monkeypatch)
    picture = shade(40)
    picture[:, :32] = 220
    path = write_film(tmp_path / "a.mp4", [picture] * 3)
    turn(path)
    image = frames_of(path)[0].image_bgr
    assert image.shape == (128, 96, 3)
    assert image[:24].mean() < 60
    assert image[-24:].mean() > 180


def test_an_opencv_that_leaves_pictures_unwritten_is_found_out_and_they_are_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opencv_film, "converts_interlaced", lambda: False)
    moving = UnwrittenFrames()
    pictures = [shade(value) for value in (1, 50, 50, 90)]
    assert [moving.may_be(picture) for picture in pictures] == [True, False, True, False]
    monkeypatch.undo()
    path = write_film(
        tmp_path / "a.mpg", [shade(200)] * 8, codec="mpeg2video", fps=25, interlaced=True
    )
    without_pyav(monkeypatch)
    frames = frames_of(path)
    assert len(frames) == 8
    for frame in frames:
        assert (frame.status == "damaged") != converts_interlaced()
        assert frame.status == "damaged" or abs(float(frame.image_bgr.mean()) - 200) < 3


def test_the_sample_that_decoders_are_tried_with_is_what_it_says() -> None:
    with interlaced_sample() as path, av.open(str(path)) as container:
        frames = [*container.decode(video=0)]
    assert [frame.interlaced_frame for frame in frames] == [True] * 3
    assert all(int(frame.to_ndarray(format="bgr24").mean()) == 200 for frame in frames)


def damaged_film(path: Path, *, at: tuple[int, ...] = (25,)) -> Path:
    rng = np.random.default_rng(1)
    pictures = [
        np.kron(rng.integers(0, 256, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    ] * 60
    write_film(path, pictures, options={"g": "10", "bf": "0"})
    places, content = packets(path), bytearray(path.read_bytes())
    for number in at:
        position, _ = places[number]
        content[position : position + 4] = b"\xff" * 4
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("use_opencv", [False, True])
def test_a_film_goes_on_behind_damaged_packets(
    tmp_path: Path,
    use_opencv: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if use_opencv:
        without_pyav(monkeypatch)
    path = damaged_film(tmp_path / "a.mp4", at=(0, 25, 26, 51))
    with open_source(path) as source:
        frames = [*source]
        assert source.damaged == 4  # type: ignore[attr-defined]
    assert len(frames) >= 45  # behind the first the keyframe is missing
    assert all(after > before for before, after in pairwise(times(frames)))
    assert times(frames)[-1] == pytest.approx(5.9, abs=1.1)
    assert "4 packets are damaged" in caplog.text


@pytest.mark.slow
def test_label_counts_damaged_packets_and_ends_with_1(tmp_path: Path, engine: Path) -> None:
    damaged_film(tmp_path / "a.mp4")
    done = run("label", tmp_path / "a.mp4", "--engine", engine, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["damaged_packets"], report["state"]) == (1, 1, "ended")
    assert report["frames"] >= 54


def test_a_film_of_damaged_packets_alone_is_one_error(tmp_path: Path) -> None:
    path = damaged_film(tmp_path / "a.mp4", at=tuple(range(60)))
    with pytest.raises(CaptureError, match="not a video"):
        open_source(path)


def joined(folder: Path) -> Path:
    first = write_film(folder / "1.ts", [shade(20)] * 30)
    second = write_film(folder / "2.ts", [shade(200)] * 20)
    third = write_film(folder / "3.ts", [shade(90)] * 10, times_s=[9e3 + i / 10 for i in range(10)])
    path = folder / "all.ts"
    path.write_bytes(b"".join(item.read_bytes() for item in (first, second, third)))
    return path


def negative(folder: Path) -> Path:
    return write_film(
        folder / "a.mkv",
        [shade(20)] * 20,
        times_s=[-1 + i / 10 for i in range(20)],
        container_options={"avoid_negative_ts": "disabled"},
    )


def without_times(folder: Path) -> Path:
    return write_film(folder / "a.h264", [shade(20)] * 20, options={"bf": "0"})


LINES: dict[str, tuple[Callable[[Path], Path], int]] = {
    "recordings joined by appending": (joined, 60),
    "negative first times": (negative, 20),
    "no times": (without_times, 20),
}


@pytest.mark.parametrize("use_opencv", [False, True])
@pytest.mark.parametrize("kind", LINES)
def test_the_times_of_frames_only_rise(
    tmp_path: Path, kind: str, use_opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_opencv:
        without_pyav(monkeypatch)
    make, count = LINES[kind]
    frames = frames_of(make(tmp_path))
    line = times(frames)
    assert len(line) == count
    assert line[0] == 0
    assert all(after > before for before, after in pairwise(line))
    if not use_opencv:
        assert line[-1] == pytest.approx((count - 1) / 10, abs=0.25)


WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "audio longer": ("a.mkv", {"audio_s": 20.0}),
    "audio longer, MP4": ("a.mp4", {"audio_s": 20.0}),
    "a late start": ("a.mkv", {"audio_s": 12.0, "times_s": [8 + i / 10 for i in range(30)]}),
    "all of it starts late": ("a.mkv", {"times_s": [8 + i / 10 for i in range(30)]}),
    "all of it starts late, MP4": ("a.mp4", {"times_s": [8 + i / 10 for i in range(30)]}),
    "all of it starts late, MPEG-TS": ("a.ts", {"times_s": [8 + i / 10 for i in range(30)]}),
    "a variable rate": ("a.mp4", {"times_s": [i / 10 for i in range(29)] + [30.0]}),
    "a variable rate, Matroska": ("a.mkv", {"times_s": [i / 10 for i in range(29)] + [30.0]}),
    "MPEG-TS": ("a.ts", {"audio_s": 8.0}),
    **{
        f"a late start in {suffix}": (
            f"a.{suffix}",
            {"codec": codec, "times_s": [500 + i / 10 for i in range(30)]},
        )
        for suffix, codec in {
            "mkv": "libx264",
            "webm": "libvpx",
            "asf": "wmv2",
            "nut": "mpeg4",
            "mp4": "libx264",
            "mov": "mpeg4",
            "flv": "flv",
            "ts": "libx264",
        }.items()
    },
    "empty frames in AVI": (
        "a.avi",
        {"codec": "mpeg4", "ticks": 10, "times_s": [i / 10 for i in range(29)] + [30.0]},
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_film_is_not_called_cut_short(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, how = WHOLE[kind]
    path = write_film(tmp_path / name, [shade(20)] * 30, **how)
    assert len(frames_of(path)) == 30
    assert caplog.text == ""


def test_an_empty_packet_repeats_a_picture_and_is_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "a.mkv", [shade(20)] * 30, options={"bf": "0"})
    packets_of = ffmpeg.packets_of

    def with_empty_ones(container: Any, *streams: Any) -> Iterator[Any]:  # as Theora has them
        for packet in packets_of(container, *streams):
            yield packet
            if packet.size:
                empty = av.Packet(0)
                empty.pts, empty.dts = packet.pts + 50, packet.dts + 50
                empty.time_base, empty.stream = packet.time_base, packet.stream
                yield empty

    monkeypatch.setattr(ffmpeg, "packets_of", with_empty_ones)
    assert [frame.status for frame in frames_of(path)] == ["ok"] * 30
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
def test_a_film_that_lacks_its_end_is(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(60)]
    how = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = write_film(tmp_path / name, pictures, codec="mpeg4", container_options=how)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with caplog.at_level(logging.WARNING):
        assert 30 < len(frames_of(path)) < 45
    assert "may be cut short" in caplog.text


@pytest.mark.parametrize("who", ["decoder", "converter"])
def test_a_film_is_not_called_damaged_where_no_thread_can_be_started(
    tmp_path: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "a.mp4", [shade(0), shade(9)])

    def refuse(*_: object) -> None:
        raise av.error.BlockingIOError(11, "Resource temporarily unavailable")

    class Packet:
        decode = refuse

    film = PyAvFilm(av, path)
    if who == "converter":
        monkeypatch.setattr(film._pictures, "to_bgr", refuse)
    else:
        monkeypatch.setattr(film._footing, "take", lambda _: None)
        monkeypatch.setattr(film, "_frames", (film._decoded(Packet()) for _ in "1"))
    with pytest.raises(CaptureError, match=r"a\.mp4: there is not enough memory for a thread, or"):
        film.read()
    film.close()


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n",
    "a concat script": "ffconcat version 1.0\nfile {film}\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 26\n",
    "DASH": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"/>\n',
}


@pytest.mark.parametrize("use_opencv", [False, True])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_file_that_names_other_files_is_no_video(
    tmp_path: Path, kind: str, use_opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use_opencv:
        without_pyav(monkeypatch)
    film = write_film(tmp_path / "secret.mp4", [shade(20)] * 3)
    for suffix in ("mp4", "m3u8", "sdp", "mpd"):
        path = tmp_path / f"list.{suffix}"
        path.write_text(PLAYLISTS[kind].format(film=film.name))
        with pytest.raises(CaptureError, match="not a video"):
            open_source(path)


@pytest.mark.parametrize(
    "name", ["concat:a.mp4", "subfile,,start,0,end,9,,:a.mp4", "file:a.mp4", "p%d.mp4"]
)
def test_a_name_is_never_a_protocol(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_film(tmp_path / "a.mp4", [shade(20)] * 3)
    write_film(tmp_path / "b.mp4", [shade(200)] * 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert int(frames_of(Path(name))[0].image_bgr.mean()) == pytest.approx(200, abs=3)


def test_a_stream_that_appears_in_the_middle_harms_nothing(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.ts", [shade(20)] * 60)
    content = bytearray(path.read_bytes())
    starts = [at for at in range(0, len(content), 188) if content[at + 1 : at + 3] == b"\x41\0"]
    content[starts[40] + 1] = 0x49  # the beginning of a picture, in a stream that nothing announced
    path.write_bytes(content)
    assert 50 < len(frames_of(path)) < 60


def test_a_song_with_a_cover_is_no_video(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", [shade(20)] * 3, audio_s=1.0)
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.m4a"), "w", format="mp4") as song:
        audio = song.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = audio
                song.mux(packet)
    with pytest.raises(CaptureError, match="holds sound alone, and no picture"):
        open_source(tmp_path / "b.m4a")


def test_a_size_that_changes_in_the_film_is_followed(tmp_path: Path) -> None:
    parts = [
        write_film(tmp_path / f"{i}.ts", [shade(20, size)] * 10)
        for i, size in enumerate([(96, 128), (192, 256)])
    ]
    path = tmp_path / "all.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    shapes = [frame.image_bgr.shape for frame in frames_of(path)]
    assert shapes == [(96, 128, 3)] * 10 + [(192, 256, 3)] * 10


def test_pictures_of_a_camera_one_after_another_are_a_film(tmp_path: Path) -> None:
    path = tmp_path / "saved.mjpeg"
    encoded = [cv2.imencode(".jpg", shade(value))[1].tobytes() for value in (40, 120, 200)]
    path.write_bytes(b"".join(encoded))
    means = [float(frame.image_bgr.mean()) for frame in frames_of(path)]
    assert means == pytest.approx([40, 120, 200], abs=2)
