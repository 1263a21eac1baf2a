"""What every setting of a training means: read from the comments of train/config.py, beside its default."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from train import config
from train.config import TrainConfig


@dataclass(frozen=True)
class Setting:
    """One of them."""

    name: str  # dotted, as `--set` takes it
    value: str  # as it is typed
    choices: tuple[str, ...]  # where it is one of several words
    meaning: str


def list_settings(chosen: TrainConfig) -> list[Setting]:
    """Every setting in the order of train/config.py, with the value that it has here."""
    return [*_settings_of(chosen, "", _meanings())]


def _settings_of(part: Any, above: str, meanings: dict[tuple[str, str], str]) -> Iterator[Setting]:
    hints = get_type_hints(type(part))
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings_of(value, f"{above}{field.name}.", meanings)
            continue
        hint = hints[field.name]
        yield Setting(
            name=above + field.name,
            value=value if isinstance(value, str) else json.dumps(value),
            choices=get_args(hint) if get_origin(hint) is Literal else (),
            meaning=meanings[type(part).__name__, field.name],
        )


def _meanings() -> dict[tuple[str, str], str]:
    """(class, field) -> the comment lines right above it, and those within it."""
    source = Path(config.__file__).read_text(encoding="utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    kinds = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    for kind in kinds:
        for node in kind.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            first, last = node.lineno, node.end_lineno or node.lineno
            while first - 1 in comments and comments[first - 1].line.lstrip().startswith("#"):
                first -= 1
            lines = [comments[n].string for n in range(first, last + 1) if n in comments]
            found[kind.name, node.target.id] = " ".join(line.lstrip("# ") for line in lines)
    return found
