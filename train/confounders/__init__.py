"""Confounders: clusters of spatial features."""
