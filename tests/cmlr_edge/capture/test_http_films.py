"""Films that a web server hands out: whole, cut off, without ranges, or as seldom as a page of slides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import open_source
from cmlr_edge.capture.base import Policy
from cmlr_edge.capture.live import LiveSettings, LiveSource, SourceState
from tests.cmlr_edge.capture.films import packets, shade, write_film
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.web import Quiet, serving


@contextmanager
def served(path: Path, *, share: float = 1.0, ranges: bool = False) -> Iterator[str]:
    """Hand a file out; give its address.

    Args:
        path: The file.
        share: Of what is announced so much is sent.
        ranges: Whether it may be read from anywhere, one request after another.
    """

    class Handler(Quiet):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content, asked = path.read_bytes(), self.headers.get("Range")
            first = int(asked[6:].split("-")[0]) if asked and ranges else 0
            self.send_response(206 if asked and ranges else 200)
            self.send_header("Content-Length", str(len(content) - first))
            if ranges:
                about = f"bytes {first}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", about)
            self.end_headers()
            self.wfile.write(content[first : round(share * len(content))])
            self.close_connection = not ranges

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/{path.name}"


def film(path: Path, count: int = 10) -> Path:
    """Of noise, so that its bytes are spread over its pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 96, 128, 3), np.uint8)
    return write_film(path, list(noise), options={"bf": "0"})


def play(source: str | Path, policy: Policy, **settings: float) -> tuple[list[float], LiveSource]:
    """Read to the end, within 20 s; the times of its frames."""
    with open_source(source, policy=policy, live=LiveSettings(**settings)) as opened:  # type: ignore[arg-type]
        assert isinstance(opened, LiveSource)
        until_s, times_s = time.monotonic() + 20, []
        while opened.state not in {SourceState.ENDED, SourceState.FAILED}:
            assert time.monotonic() < until_s, (opened.state, opened.reason)
            if (frame := opened.next_frame(0.1)) is not None:
                times_s.append(frame.time_s or 0.0)
        while (frame := opened.next_frame(0.0)) is not None:
            times_s.append(frame.time_s or 0.0)
    return times_s, opened


@pytest.mark.parametrize("policy", ["newest", "every"])
@pytest.mark.parametrize("name", ["film.mkv", "film.ts"])
def test_a_film_of_a_web_server_gives_every_picture_at_its_time(
    tmp_path: Path, name: str, policy: Policy
) -> None:
    with served(film(tmp_path / name), ranges=True) as address:
        times_s, source = play(address, policy)
    assert times_s == pytest.approx([i / 10 for i in range(10)], abs=0.01)
    assert not source.is_cut


@pytest.mark.parametrize("policy", ["newest", "every"])
def test_one_that_is_cut_off_is_told(tmp_path: Path, policy: Policy) -> None:
    with served(film(tmp_path / "film.mkv", 12), share=0.6) as address:
        times_s, source = play(address, policy)
    assert 0 < len(times_s) < 12
    assert source.is_cut
    assert "connection is lost" in source.reason
    assert "of 1.2 s" in source.reason


def test_label_ends_with_1_where_it_is_cut_off(tmp_path: Path, engine: Path) -> None:
    with served(film(tmp_path / "film.mkv"), share=0.6) as address:
        done = run("label", address, "--engine", engine, "--policy", "every")
    assert done.returncode == 1
    assert done.stderr.count("the connection is lost") == 1


def test_label_ends_with_1_where_a_file_at_its_own_pace_is_cut_off(
    tmp_path: Path, engine: Path
) -> None:
    whole = film(tmp_path / "film.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 3 // 5])
    done = run("label", tmp_path / "cut.mkv", "--engine", engine, "--policy", "newest")
    assert done.returncode == 1
    assert "lacks its end" in done.stderr


def test_one_of_unknown_length_is_over_where_all_bytes_were_sent(tmp_path: Path) -> None:
    with served(film(tmp_path / "film.ts")) as address:  # without ranges no end can be looked at
        times_s, source = play(address, "every")
    assert len(times_s) == 10
    assert source.stats.reconnects == 0


def test_one_without_a_picture_is_no_success(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", 3)
    content = bytearray(path.read_bytes())
    for position, size in packets(path):
        at = content.index(b"\x00\x00", position)  # somewhere in its block
        content[at : position + size] = b"\xff" * (position + size - at)
    path.write_bytes(content)
    with served(path) as address:
        times_s, source = play(address, "every", first_frame_timeout_s=0.5)
    assert times_s == []
    assert source.state is SourceState.FAILED
    assert "before a picture that can be decoded" in source.reason


@pytest.mark.parametrize("where", ["file", "server"])
def test_pictures_that_are_far_apart_are_waited_for(tmp_path: Path, where: str) -> None:
    path = write_film(
        tmp_path / "slides.mkv", [shade(0), shade(200), shade(90)], times_s=[0.0, 0.9, 1.8]
    )
    with served(path, ranges=True) as address:
        source = path if where == "file" else address
        start_s = time.monotonic()
        times_s, played = play(source, "newest", read_timeout_s=0.2, hang_timeout_s=0.4)
    assert time.monotonic() - start_s >= 1.8
    assert times_s == pytest.approx([0.0, 0.9, 1.8], abs=0.01)
    assert played.stats.reconnects == 0


def test_a_film_that_loops_goes_on_in_time(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", 4)
    with open_source(path, policy="newest", loop=True) as source:
        times_s = [frame.time_s or 0.0 for frame, _ in zip(source, range(9), strict=False)]
    assert all(before < after for before, after in pairwise(times_s))
    assert times_s == pytest.approx([i / 10 for i in range(9)], abs=0.15)
