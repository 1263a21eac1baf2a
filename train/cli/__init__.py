"""The command line of `python -m train`: a module per command, put together in `app.py`."""

from __future__ import annotations
