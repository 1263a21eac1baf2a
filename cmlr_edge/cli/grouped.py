"""Many flags of a command as one dataclass, which has the methods that make something of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, get_type_hints


def takes_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command with a parameter `flags`, a dataclass, a flag for each field of it instead.

    A parameter of the command's own that is named like a field takes its place.
    """
    parameters = dict(inspect.signature(command, eval_str=True).parameters)
    kind = parameters.pop("flags").annotation
    hints = get_type_hints(kind, include_extras=True)
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
        if field.name not in parameters
    ]
    own = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters.values()]

    @wraps(command)
    def with_flags(**given: Any) -> None:
        values = {item.name: given.pop(item.name) for item in shared if item.name in given}
        command(**given, flags=kind(**values))

    with_flags.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    with_flags.__annotations__ = {item.name: item.annotation for item in (*own, *shared)}
    return with_flags
