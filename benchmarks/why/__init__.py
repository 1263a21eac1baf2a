"""Explanations held against a known truth: sums, cost, pointing game, and the flag for surroundings."""
