"""Fitting the network: batches, losses, steps, the read-out."""
