"""Words that depend on a number; and that nobody writes them by hand, where the number may be one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cmlr_edge.wording import counted, few_of

ROOT = Path(__file__).parents[2]
COUNTS = re.compile(
    r"\{(?:len\([^{}]*\)|[^{}]*\b(?:count|number|frames|lost|found|drawn|rows|failures|images)[^{}]*)\} "
    r"(?:pictures|frames|rows|files|events|failures|images|blocks|visits|cores|units)\b"
)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (-1, "-1 rows")]
)
def test_one_is_no_plural(number: int, said: str) -> None:
    assert counted(number, "row") == said


def test_a_plural_of_its_own() -> None:
    assert counted(1, "result or event", "results or events") == "1 result or event"
    assert counted(3, "result or event", "results or events") == "3 results or events"


def test_of_many_names_the_first_are_said() -> None:
    assert few_of(["cup", "fork"], 2) == "cup, fork"
    assert few_of(["cup", "fork", "bowl"], 2) == "cup, fork and 1 more"


def test_commands_count_by_it() -> None:
    pages = [*(ROOT / "cmlr_edge/cli").glob("*.py"), *(ROOT / "train/cli").glob("*.py")]
    assert pages
    by_hand = [
        f"{page.name}: {found.group()}"
        for page in pages
        for found in COUNTS.finditer(page.read_text())
    ]
    assert not by_hand
