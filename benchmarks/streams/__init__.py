"""Do many streams last? Eight sources for ten minutes, two of which fail in turn.

stand_in.py   a model that costs almost nothing, where the streams and not the model are to be tried
endurance.py  the run: what each source kept, what memory, threads and files did
flicker.py    another question: what hysteresis in seconds makes of a score that flickers
"""

from __future__ import annotations
