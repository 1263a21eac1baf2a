"""Where every command says what went wrong."""

from __future__ import annotations

from rich.console import Console

stderr = Console(stderr=True)
