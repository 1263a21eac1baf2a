"""Damaged files against the SDK: every one is refused with a typed error, or loads and works."""
