"""Archives: pictures and recordings of any number, labelled once each into a Parquet dataset.

A run plans units of work (`inputs.py`, `plan.py`), which processes of this machine (`crew.py`) or actors
of a Ray cluster (`ray_crew.py`) do (`worker.py`). A unit's rows become one file under a name that its
content gives (`dataset.py`), so that a unit done twice is there once, and a run that was killed goes on
with what has no file yet. Parts of long films are put together at the end (`films.py`).
"""
