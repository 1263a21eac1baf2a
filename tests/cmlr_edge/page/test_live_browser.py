"""The live page in a real Chromium."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cmlr_edge import Explain, Recognizer
from cmlr_edge.capture import open_source
from cmlr_edge.page.running import LiveServer
from cmlr_edge.page.state import LiveState
from cmlr_edge.pipeline import Streams
from tests.cmlr_edge.page.browsing import card, state_is, wait_for
from tests.cmlr_edge.page.live_page import serving
from tests.cmlr_edge.page.network import network
from tests.cmlr_edge.pipeline.stand_ins import SlowBackend, recognizer_of
from tests.conftest import solid, write_video
from tests.explained_engine import write_explained_engine

pytestmark = pytest.mark.slow

PATTERN = "test://?fps=20&size=320x240"


def test_labels_bars_timeline_and_events_appear(
    browser: webdriver.Chrome, color_engine: Path
) -> None:
    # Its thresholds are 0.2 red, 0.6 green, 0.4 blue; the pattern is red 0.26, green and blue 0.41.
    with serving(color_engine, {"door": PATTERN}) as server:
        browser.get(server.url)
        wait_for(browser, "document.querySelector('.chips [data-label=red]')")
        bars = {
            bar.get_attribute("data-label"): bar
            for bar in card(browser, 0).find_elements(By.CSS_SELECTOR, ".bar")
        }
        assert set(bars) == {"red", "green", "blue"}
        classes = {label: str(bar.get_attribute("class")).split() for label, bar in bars.items()}
        assert "reached" in classes["red"]
        assert "reached" not in classes["green"]
        for label, threshold in (("red", 0.2), ("green", 0.6), ("blue", 0.4)):
            mark, fill = (bars[label].find_element(By.CSS_SELECTOR, tag) for tag in ("u", "i"))
            track = bars[label].find_element(By.CSS_SELECTOR, ".track").rect
            center = mark.rect["x"] + mark.rect["width"] / 2
            assert (center - track["x"]) / track["width"] == pytest.approx(threshold, abs=0.01)
            score = float(bars[label].find_element(By.TAG_NAME, "output").text)
            assert fill.rect["width"] / track["width"] == pytest.approx(score, abs=0.05)
        assert browser.find_elements(By.CSS_SELECTOR, ".chips [data-label=green]") == []
        wait_for(browser, "document.querySelector('#timeline .lane i.lasting')")
        # Read at once: what changes is drawn anew while the test looks.
        told = wait_for(browser, "document.querySelector('#events li.lasting .what')?.textContent")
        assert told.startswith(("red", "blue"))
        wait_for(browser, "document.querySelector('#latency tr.whole')")
        assert "ONNX Runtime" in browser.find_element(By.ID, "runtime").text


def test_the_picture_is_the_cameras(browser: webdriver.Chrome, engine: Path, clip: Path) -> None:
    with serving(engine, {"clip": clip}) as server:
        browser.get(server.url)
        state_is(browser, 0, "ended")
        pixel = (
            "[...document.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data]"
        )
        # The clip ends blue.
        assert wait_for(browser, pixel) == pytest.approx([5, 5, 250, 255], abs=8)
        frames = "document.querySelector('[data-stat=frames]').textContent"
        assert int(wait_for(browser, frames)) > 0


def test_a_failing_source_shows_as_such_and_recovers(
    browser: webdriver.Chrome, engine: Path
) -> None:
    sources = {"broken": f"{PATTERN}&none=80:6", "sound": PATTERN}
    with serving(engine, sources) as server:
        browser.get(server.url)
        state_is(browser, 0, "reconnecting")
        trouble = card(browser, 0).find_element(By.CSS_SELECTOR, ".trouble")
        assert trouble.is_displayed()
        assert "stopped delivering" in trouble.text or "cannot be opened" in trouble.text
        assert "last frame" in trouble.text
        assert "troubled" not in str(card(browser, 1).get_attribute("class"))
        state_is(browser, 1, "ok")
        state_is(browser, 0, "ok")
        assert not trouble.is_displayed()
        wait_for(browser, "document.querySelector('[data-stat=reconnects]').textContent !== '0'")


def test_a_model_that_hangs_never_leaves_an_old_picture_as_live(browser: webdriver.Chrome) -> None:
    healthy = threading.Event()
    healthy.set()
    slow = recognizer_of(SlowBackend(lambda _: healthy.wait(60)))
    try:
        with serving(slow, {"door": PATTERN}) as server:
            browser.get(server.url)
            state_is(browser, 0, "ok")
            healthy.clear()
            state_is(browser, 0, "late")
            assert (
                "does not keep up" in card(browser, 0).find_element(By.CLASS_NAME, "trouble").text
            )
            healthy.set()
            state_is(browser, 0, "ok")
    finally:
        healthy.set()


@pytest.mark.parametrize(("width", "height"), [(360, 740), (390, 844), (844, 390)])
def test_a_phone_needs_no_sideways_scrolling(
    browser: webdriver.Chrome, color_engine: Path, width: int, height: int
) -> None:
    sources = {"a" * 90: PATTERN, "yard": "test://?fps=10&size=128x1024"}
    with serving(color_engine, sources) as server:
        phone = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        try:
            browser.get(server.url)
            wait_for(browser, "document.querySelector('#events li.lasting')")
            wait_for(browser, "document.querySelector('#latency tr.whole')")
            assert browser.execute_script("return document.documentElement.clientWidth") == width
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
            wider = (
                "[...document.querySelectorAll('main > *, .card, .bar, #events li, .stats div')]"
            )
            edges = f"{wider}.map(e => e.getBoundingClientRect().right).filter(x => x > innerWidth)"
            assert browser.execute_script(f"return {edges}") == []
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_names_are_text_and_never_markup(browser: webdriver.Chrome, engine: Path) -> None:
    name = "<img src=x onerror=document.title='broken'>"
    with serving(engine, {name: PATTERN}) as server:
        browser.get(server.url)
        wait_for(browser, "document.querySelector('#latency td')")
        assert card(browser, 0).find_element(By.CSS_SELECTOR, ".name").text == name
        assert browser.title == "cmlr_edge live"


def test_the_page_loads_nothing_from_elsewhere_and_logs_no_error(
    browser: webdriver.Chrome, engine: Path
) -> None:
    with serving(engine, {"door": PATTERN}) as server:
        browser.get(server.url)
        state_is(browser, 0, "ok")
        names = "performance.getEntriesByType('resource').map(entry => entry.name)"
        hosts = {urlsplit(name).netloc for name in wait_for(browser, names)}
        assert hosts == {f"127.0.0.1:{server.port}"}
        assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_the_page_comes_back_with_the_server(
    browser: webdriver.Chrome, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Recognizer.from_engine(engine) as recognizer,
        Streams(recognizer) as streams,
    ):
        live = LiveState(streams, recognizer)
        live.watch("door")
        counts = live.metrics.of_source("door")
        streams.add(open_source(PATTERN), name="door", sinks=[live.visits, counts])
        with LiveServer(live) as first:
            streams.start()
            browser.get(first.url)
            wait_for(browser, "document.querySelector('#link').dataset.state === 'ok'")
        wait_for(browser, "document.querySelector('#link').dataset.state === 'lost'")
        state_is(browser, 0, "lost")
        live.closing = False
        with LiveServer(live, port=first.port):
            wait_for(browser, "document.querySelector('#link').dataset.state === 'ok'")
            state_is(browser, 0, "ok")
            wait_for(browser, "!document.querySelector('.card').matches('.troubled')")
            assert browser.execute_script("return !(window.isFormer = true)") is False
            monkeypatch.setattr(live, "state", lambda: replace(LiveState.state(live), version="9"))
            wait_for(browser, "!window.isFormer")  # loaded anew, to fit the other software
            state_is(browser, 0, "ok")


def test_a_page_whose_network_forgot_it_connects_again(
    browser: webdriver.Chrome, engine: Path
) -> None:
    with serving(engine, {"door": PATTERN}) as server, network(server.port) as way:
        browser.get(f"http://127.0.0.1:{way.port}/")
        state_is(browser, 0, "ok")
        way.forget()
        browser.execute_script(  # as if 11 s were over, in a browser of 2021
            "delete AbortSignal.timeout; const now = performance.now.bind(performance); "
            "performance.now = () => now() + 11000"
        )
        wait_for(browser, "document.querySelector('#link').dataset.state === 'lost'")
        wait_for(browser, "document.querySelector('#link').dataset.state === 'ok'")
        state_is(browser, 0, "ok")
        browser.get("about:blank")


def test_a_visitor_types_the_token_once(browser: webdriver.Chrome, engine: Path) -> None:
    with serving(engine, {"door": PATTERN}, token="open sesame, twice") as server:
        browser.get(server.url)
        field = browser.find_element(By.NAME, "token")
        field.send_keys("open sesame, twice")
        field.submit()
        state_is(browser, 0, "ok")
        assert browser.current_url == server.url
        browser.refresh()
        state_is(browser, 0, "ok")


def test_a_chosen_label_tells_its_sum_and_where_it_is(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    image = solid(20, 20, 20, (96, 128))
    image[48:, 96:] = (0, 0, 255)  # red, in the last cell of 2 x 4
    write_video(tmp_path / "c.mp4", [image] * 10)
    engine = write_explained_engine(tmp_path / "explained")
    told = "document.querySelector('.why')"
    with serving(engine, {"door": tmp_path / "c.mp4"}, explain=Explain(), policy="every") as server:
        browser.get(server.url)
        state_is(browser, 0, "ended")
        bar = wait_for(browser, "document.querySelector('.bar[data-label=red]')")
        assert not browser.execute_script(f"return !{told}.hidden")
        bar.send_keys(Keys.ENTER)  # of a source that is over: the frame that is there answers
        wait_for(browser, f"!{told}.hidden")
        terms = browser.execute_script(
            f"return [...{told}.querySelectorAll('.term')].map((term) => term.innerText.split('\\n'))"
        )
        amounts = {name: float(amount.replace("\u2212", "-")) for name, amount in terms}
        assert [*amounts][:3] == ["own evidence", "surroundings", "with green"]
        total = float(
            browser.execute_script(f"return {told}.querySelector('.sum').textContent")
            .split()[1]
            .replace("\u2212", "-")
        )
        assert sum(amounts.values()) == pytest.approx(total, abs=0.3)  # each is rounded
        alpha = (
            "(() => { const heat = document.querySelector('.heat'), { width, height } = heat;"
            "const paint = heat.getContext('2d');"
            "return [[0.06, 0.2], [0.94, 0.9]].map(([x, y]) =>"
            " paint.getImageData(x * width, y * height, 1, 1).data[3]); })()"
        )
        cold, hot = wait_for(browser, alpha)
        assert hot > cold + 50
        browser.execute_script("document.querySelector('.why button').click()")
        assert wait_for(browser, f"{told}.hidden && document.querySelector('.heat').hidden")
        assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_labels_cannot_be_chosen_where_nothing_is_explained(
    browser: webdriver.Chrome, engine: Path
) -> None:
    with serving(engine, {"door": PATTERN}) as server:
        browser.get(server.url)
        wait_for(browser, "document.querySelector('.bar[data-label=red]')").click()
        assert browser.execute_script("return document.querySelector('.why').hidden")
        assert browser.execute_script("return document.querySelector('.why-hint').hidden")
