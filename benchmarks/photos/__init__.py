"""Heads compared on real photos: on stored tokens of a frozen backbone, and with fine-tuning."""
