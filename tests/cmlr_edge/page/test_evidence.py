"""Pictures and clips of events on the page and in its REST interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, PageSettings, SourceSettings
from cmlr_edge.sinks.opening import SinkSettings
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.page.browsing import wait_for
from tests.cmlr_edge.page.live_page import get, get_json
from tests.waiting import wait_until


@contextmanager
def session(engine: Path, folder: Path, *, codec: str = "libx264") -> Iterator[Any]:
    """A film with one event, of which there are a picture and a clip, and its page."""
    pictures = [
        np.full((96, 128, 3), (0, n, 240 if 20 <= n < 40 else 0), np.uint8) for n in range(70)
    ]
    options = {"g": "25", **({"bf": "2"} if codec == "libx264" else {})}
    film = write_film(folder / "film.mkv", pictures, codec=codec, options=options)
    config = SessionConfig(
        EngineSettings(path=str(engine)),
        (SourceSettings(str(film), "door"),),
        (
            SinkSettings("snapshots", path=str(folder / "s")),
            SinkSettings("clips", path=str(folder / "c"), before_s=1.0, after_s=1.0),
        ),
        page=PageSettings(port=0),
    )
    with Session(config) as opened:
        server = SimpleNamespace(port=int(opened.page_url.rstrip("/").rpartition(":")[2]))
        opened.streams.start()
        assert opened.streams.wait(30)
        wait_until(lambda: [*(folder / "c").glob("*/*.m*")])
        yield opened, server


def test_rest_gives_paths_pictures_and_clips_in_parts(engine: Path, tmp_path: Path) -> None:
    with session(engine, tmp_path) as (_, server):
        [event] = get_json(server, "/api/events")
        address = f"/api/events/{event['id']}"
        for what, kind in (("picture", "image/jpeg"), ("clip", "video/mp4")):
            status, headers, body = get(server, f"{address}/{what}")
            assert (status, headers["content-type"]) == (200, kind)
            assert body == Path(event[what]).read_bytes()
        status, headers, body = get(server, f"{address}/clip", Range="bytes=4-7")
        assert (status, body) == (206, b"ftyp")
        Path(event["clip"]).unlink()
        assert get(server, f"{address}/clip")[0] == 404
        for wrong in ("0" * 32, "..%2f" * 8, "x", "A" * 32):
            assert get(server, f"/api/events/{wrong}/clip")[0] in {404, 422}
        assert get(server, f"{address}/label")[0] == 422


def test_a_clip_of_another_codec_is_told_for_what_it_is(engine: Path, tmp_path: Path) -> None:
    with session(engine, tmp_path, codec="mpeg4") as (_, server):
        [event] = get_json(server, "/api/events")
        _, headers, _ = get(server, f"/api/events/{event['id']}/clip")
        assert headers["content-type"] == "video/x-matroska"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_a_clip_plays_in_a_browser_and_begins_where_it_was_asked_to(
    browser: webdriver.Chrome, engine: Path, tmp_path: Path, width: int
) -> None:
    browser.set_window_size(width, 900)
    with session(engine, tmp_path) as (opened, _):
        browser.get(opened.page_url)
        wait_for(browser, "document.querySelector('#events img')?.naturalWidth > 0")
        browser.find_element(By.CSS_SELECTOR, "#events button.evidence").send_keys(Keys.ENTER)
        film = "document.querySelector('#evidence video')"
        wait_for(browser, f"{film}.readyState >= 2")
        duration = float(browser.execute_script(f"return {film}.duration"))
        assert duration == pytest.approx(4.0, abs=0.4)  # 1 s before, 2 s, 1 s after
        browser.execute_script(f"{film}.pause(); {film}.currentTime = 0")
        wait_for(browser, f"!{film}.seeking")
        # The picture at 0: green tells its number, which is that of 1 s before the event.
        green = browser.execute_script(
            f"const c = document.createElement('canvas'); c.width = c.height = 1; const x = c.getContext('2d');"
            f"x.drawImage({film}, 0, 0, 1, 1); return x.getImageData(0, 0, 1, 1).data[1]"
        )
        assert green == pytest.approx(10, abs=5)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        browser.save_screenshot(str(tmp_path / f"clip_{width}.png"))
        browser.switch_to.active_element.send_keys(Keys.ESCAPE)
        wait_for(browser, "!document.querySelector('#evidence').open")
        focused = "document.activeElement.className"
        assert browser.execute_script(f"return {focused}") == "evidence"


@pytest.mark.slow
def test_a_clip_that_no_browser_plays_says_so(
    browser: webdriver.Chrome, engine: Path, tmp_path: Path
) -> None:
    with session(engine, tmp_path, codec="mpeg4") as (opened, _):
        browser.get(opened.page_url)
        wait_for(browser, "document.querySelector('#events img')?.naturalWidth > 0")
        browser.find_element(By.CSS_SELECTOR, "#events button.evidence").click()
        told = (
            "document.querySelector('#evidence p').textContent.includes('does not play the codec')"
        )
        wait_for(browser, told)
