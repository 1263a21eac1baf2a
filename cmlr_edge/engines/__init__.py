"""Opening an engine, choosing what runs it, and building one for this machine."""
