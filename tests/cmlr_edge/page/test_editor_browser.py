"""A source is edited in a browser, by pointer and by keyboard, on a screen and on a phone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cmlr_edge.cli.flags import Flags
from cmlr_edge.session import Session
from cmlr_edge.session.config import load_config
from cmlr_edge.session.runner import Runner
from tests.cmlr_edge.page.browsing import wait_for

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-tests"


@contextmanager
def edited(browser: webdriver.Chrome, engine: Path, folder: Path) -> Iterator[Path]:
    """A site whose page is open at its editor; gives its configuration."""
    file = folder / "site.toml"
    file.write_text(
        f'threshold = 0.2\n[engine]\npath = "{engine}"\n[page]\nport = 0\ntoken = "{TOKEN}"\n'
        '[[sources]]\nname = "door"  # the front\nuri = "test://?fps=20&size=320x240"\n'
    )
    flags = Flags(config=file)

    def fill(file: Path | None = None) -> Any:
        return flags.to_config([], append=False, file=file)[0]

    with Session(fill(), folder=folder) as session:
        runner = Runner(session, reread=fill, file=file, until_over=False)
        thread = threading.Thread(target=runner.run)
        thread.start()
        try:
            browser.get(session.page_url)
            browser.find_element(By.NAME, "token").send_keys(TOKEN, Keys.ENTER)
            wait_for(browser, "document.querySelector('.card .state[data-state=ok]')")
            wait_for(browser, "document.querySelector('button.edit:not([hidden])')")
            browser.find_element(By.CSS_SELECTOR, "button.edit").send_keys(Keys.ENTER)
            wait_for(
                browser,
                "document.querySelector('#edit').open && document.querySelector('#edit canvas').width > 300",
            )
            yield file
        finally:
            browser.get("about:blank")
            runner.request_end()
            thread.join(30)


def find(browser: webdriver.Chrome, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, f"#edit {selector}")


def save(browser: webdriver.Chrome) -> None:
    find(browser, ".main").click()
    wait_for(browser, "!document.querySelector('#edit').open")


@pytest.mark.parametrize("width", [1400, 390])
def test_a_mask_is_drawn_by_pointer_and_saved(
    browser: webdriver.Chrome, engine: Path, tmp_path: Path, width: int
) -> None:
    browser.set_window_size(width, 900)
    with edited(browser, engine, tmp_path) as file:
        find(browser, "[data-tool=mask]").click()
        canvas = find(browser, "canvas")
        w, h = canvas.size["width"], canvas.size["height"]
        for x, y in ((-0.4, -0.4), (0.1, -0.4), (0.1, 0.3), (-0.4, -0.4)):  # from the middle
            ActionChains(browser, 0).move_to_element_with_offset(
                canvas, round(x * w), round(y * h)
            ).click().perform()
        wait_for(browser, "document.querySelectorAll('#edit .shapes li').length === 1")
        find(browser, ".labels li:nth-child(3) input[type=checkbox]").click()
        find(browser, ".labels li:nth-child(1) input[type=number]").send_keys("0.22")
        wait_for(browser, "document.querySelector('#edit .labels li.reached')")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        box = browser.execute_script(
            "return document.querySelector('#edit').getBoundingClientRect().toJSON()"
        )
        assert box["left"] >= 0
        assert box["right"] <= width
        browser.save_screenshot(str(tmp_path / f"edit_{width}.png"))
        save(browser)
        [source] = load_config(file).sources
        [mask] = source.masks
        for found, expected in zip(mask, ((0.1, 0.1), (0.6, 0.1), (0.6, 0.8)), strict=True):
            assert found == pytest.approx(expected, abs=0.02)
        assert source.labels == ("red", "green")
        assert source.thresholds == {"red": 0.22}
        assert "# the front" in file.read_text()
        pixel = "[...document.querySelector('.card canvas').getContext('2d').getImageData(170, 60, 1, 1).data]"
        wait_for(browser, f"Math.abs({pixel}[1] - 96) < 8 && Math.abs({pixel}[0] - 96) < 8")


def test_all_of_it_by_keyboard_and_a_refusal_is_one_line(
    browser: webdriver.Chrome, engine: Path, tmp_path: Path
) -> None:
    with edited(browser, engine, tmp_path) as file:
        before = file.read_text()
        find(browser, "[data-tool=region]").send_keys(Keys.ENTER)
        assert browser.execute_script("return document.activeElement.tagName") == "CANVAS"
        up_left = [Keys.SHIFT, *[Keys.ARROW_LEFT] * 3, *[Keys.ARROW_UP] * 3, Keys.NULL]
        keys = [*up_left, Keys.ENTER, Keys.SHIFT, *[Keys.ARROW_RIGHT] * 6, Keys.NULL, Keys.ENTER]
        keys += [Keys.SHIFT, *[Keys.ARROW_DOWN] * 6, Keys.NULL, Keys.ENTER, Keys.SPACE]
        browser.switch_to.active_element.send_keys(*keys)
        wait_for(
            browser,
            "document.querySelector('#edit .shapes input')?.value === '0.2,0.2 0.8,0.2 0.8,0.8'",
        )
        find(browser, "[name=active]").send_keys("at night")
        find(browser, ".main").click()
        told = wait_for(browser, "document.querySelector('#edit .refusal').textContent")
        assert told.startswith("Nothing was changed: ")
        assert "cannot read the hours 'at night'" in told
        assert file.read_text() == before
        find(browser, "[name=active]").clear()
        find(browser, "[name=active]").send_keys("mon-sun 00:00-24:00")
        find(browser, "[name=max_fps]").send_keys("8")
        find(browser, "[name=tiles]").send_keys("2x2")
        save(browser)
        [source] = load_config(file).sources
        assert source.region == ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8))
        assert (source.max_fps, source.tiles, source.active) == (
            8.0,
            "2x2",
            ("mon-sun 00:00-24:00",),
        )
        focused = "document.activeElement.className"
        assert browser.execute_script(f"return {focused}") == "edit"


def test_a_shape_is_moved_typed_and_taken_away(
    browser: webdriver.Chrome, engine: Path, tmp_path: Path
) -> None:
    with edited(browser, engine, tmp_path) as file:
        find(browser, "[data-tool=mask]").click()
        canvas = find(browser, "canvas")
        browser.switch_to.active_element.send_keys(
            Keys.ENTER, Keys.ARROW_LEFT, Keys.ENTER, Keys.ESCAPE
        )
        assert browser.execute_script(
            "return document.querySelector('#edit').open"
        )  # the shape alone is given up
        assert not browser.find_elements(By.CSS_SELECTOR, "#edit .shapes li")
        find(browser, "[data-tool=mask]").click()
        w, h = canvas.size["width"], canvas.size["height"]
        for x, y in ((-0.4, -0.4), (0.1, -0.4), (0.1, 0.3)):
            ActionChains(browser, 0).move_to_element_with_offset(
                canvas, round(x * w), round(y * h)
            ).click().perform()
        find(browser, "[data-tool=close]").click()
        ActionChains(browser, 50).move_to_element_with_offset(
            canvas, round(0.1 * w), round(0.3 * h)
        ).click_and_hold().move_by_offset(round(0.3 * w), 0).release().perform()
        wait_for(
            browser,
            "Math.abs(parseFloat(document.querySelector('#edit .shapes input').value.split(' ')[2]) - 0.9) < 0.02",
        )
        text = find(browser, ".shapes input")
        text.clear()
        text.send_keys("0,0 1,0 1")
        assert not browser.execute_script(
            "return document.querySelector('#edit form').checkValidity()"
        )
        text.send_keys(",1")
        assert browser.execute_script("return document.querySelector('#edit form').checkValidity()")
        save(browser)
        assert load_config(file).sources[0].masks == (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),)
        browser.find_element(By.CSS_SELECTOR, "button.edit").click()
        wait_for(browser, "document.querySelector('#edit').open")  # and filled anew before
        find(browser, ".shapes button").click()
        save(browser)
        assert load_config(file).sources[0].masks == ()
