"""What tests look for on the page in a browser."""

from __future__ import annotations

from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait


def wait_for(browser: webdriver.Chrome, script: str, *arguments: object) -> Any:
    """Wait until an expression of the page is true, and return it."""
    run = f"return {script}"
    return WebDriverWait(browser, 30, 0.05).until(lambda b: b.execute_script(run, *arguments))


def card(browser: webdriver.Chrome, source: int) -> WebElement:
    wait_for(browser, f"document.querySelector('[data-source=\"{source}\"] .state')?.textContent")
    return browser.find_element(By.CSS_SELECTOR, f'[data-source="{source}"]')


def state_is(browser: webdriver.Chrome, source: int, state: str) -> None:
    selector = f'[data-source="{source}"] .state[data-state="{state}"]'
    wait_for(browser, "document.querySelector(arguments[0])", selector)
