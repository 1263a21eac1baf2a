"""A server to ask, one that wants a token, and a Chromium that all tests of the page share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from cmlr_edge.page.running import LiveServer
from tests.cmlr_edge.page.live_page import PATTERN, TOKEN, get_json, serving
from tests.waiting import wait_until


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium with chromedriver here: apt install chromium chromium-driver")
    options = Options()
    options.binary_location = browser
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    chromium.set_window_size(1400, 1000)
    yield chromium
    chromium.get("about:blank")  # lets go of the server before it ends
    chromium.get_log("browser")


@pytest.fixture
def page(engine: Path) -> Iterator[LiveServer]:
    with serving(engine, {"door": PATTERN, "yard": "test://?fps=5"}) as server:
        wait_until(lambda: all(item["frame"] for item in get_json(server, "/api/state")["sources"]))
        yield server


@pytest.fixture
def guarded(engine: Path) -> Iterator[LiveServer]:
    with serving(engine, {"door": PATTERN}, token=TOKEN) as server:
        yield server
