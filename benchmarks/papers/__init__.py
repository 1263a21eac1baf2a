"""The tables of the publications: a recipe file for each, with its arms; many runs, and intervals.

TABLE.toml   data, download, training, arms
recipes.py   what is in such a file
runs.py      train and score every arm with every seed
report.py    means over seeds, and gains on the first arm
"""

from __future__ import annotations
