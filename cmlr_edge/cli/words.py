"""What a person writes as one word of a command: a source with its name, labels, settings of events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cmlr_edge.capture import is_live
from cmlr_edge.errors import SpecError
from cmlr_edge.model.stability import StabilityChange, StabilityRules

_NAMED = re.compile(r"([\w .-]{1,40})=(.+)", re.DOTALL)


def split_name(text: str) -> tuple[str, str]:
    """Take `name=uri` apart; a file of that name, or a pipeline, is no name."""
    named = None if Path(text).exists() else _NAMED.fullmatch(text)
    if named is None or (is_live(text) and " " in named[1].strip()):
        return "", text
    return named[1].strip(), named[2]


def read_names(text: str) -> tuple[str, ...]:
    """Labels, by commas."""
    return tuple(name.strip() for name in text.split(","))


def read_rules(given: Sequence[str]) -> StabilityRules:
    """Read what `--stability` was given.

    Raises:
        SpecError: It is written otherwise than its help says.
    """
    known = [*vars(StabilityChange())]
    values: dict[str, dict[str, float]] = {}
    for text in given:
        found = re.fullmatch(r"(?:(.+)\.)?(\w+)=(\d*\.?\d+)", text, re.ASCII)
        if found is None or found[2] not in known:
            raise SpecError(
                f"cannot read --stability {text}: expected SETTING=NUMBER or LABEL.SETTING=NUMBER, "
                f"with one of {known}"
            )
        values.setdefault(found[1] or "", {})[found[2]] = float(found[3])
    changes = {name: StabilityChange(**changed) for name, changed in values.items()}
    return StabilityRules(changes.pop("", StabilityChange()), changes)
