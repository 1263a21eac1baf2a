"""Frames that a run kept to be labelled: read, drawn on a sheet, and handed to tools for annotation."""
