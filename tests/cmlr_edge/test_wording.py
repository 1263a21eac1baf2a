"""Words that depend on a number; and that nobody writes them by hand, where the number may be one."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from cmlr_edge.errors import SpecError
from cmlr_edge.model.label_names import require_known
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


def test_labels_of_another_model_are_told_in_a_short_line_and_at_once() -> None:
    typed = [f"wolf spider {i}" for i in range(1000)] + ["x" * 10_000]
    began = time.process_time()
    with pytest.raises(SpecError, match=r"and 991 more\]; ") as told:
        require_known(typed, [f"spider monkey {i}" for i in range(1000)], "thresholds name")
    assert time.process_time() - began < 5  # each with each: 20
    assert len(str(told.value)) < 1000
    with pytest.raises(SpecError, match=r"x\.\.\.'\]; known"):
        require_known(["x" * 10_000], ["cat"], "thresholds name")
