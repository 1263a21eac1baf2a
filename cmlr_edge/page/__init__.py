"""The live page: what the sources show, in a browser, with REST, metrics and health beside it.

`state.py` gathers what is known, `visits.py` keeps the events, `pictures.py` makes JPEGs of the newest
frames, `viewer.py` sends both to one browser at the browser's pace, `app.py` gives everything its
address, `gate.py` decides who may see it, and `running.py` runs it beside the recognition. `page/`
holds the page itself: one HTML, one stylesheet, one script, nothing from elsewhere.

Nothing here is called by the recognition but `VisitLog.write_event`, which takes a lock for a moment:
a slow browser, or many, cost pictures on their own screens and never a frame of the recognition.
"""
