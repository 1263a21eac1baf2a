"""Does the intervention remove contextual bias? Heads compared on ContextScenes.

features.py   tokens of a frozen backbone, stored once per set of scenes
methods.py    what is compared
runs.py       one head trained and scored; many of them side by side
report.py     intervals, tables and pictures from the stored results
"""

from __future__ import annotations
