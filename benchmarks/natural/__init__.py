"""Real photos re-sampled to a known bias: does a head need a label's usual company?

sampling.py   pairs of labels, and training parts that never show one without the other
tokens.py     tokens of a frozen backbone, stored once per set of photos
methods.py    what is compared
training.py   one head trained on tokens
measures.py   Exclusive, Co-occur and All, on the photos and on resampled ones
runs.py       one method on one split with one seed; many of them side by side
report.py     intervals and tables from the stored runs
"""

from __future__ import annotations
