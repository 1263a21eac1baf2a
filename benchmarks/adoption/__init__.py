"""Foreign classifiers, adopted, against what made them: `python -m benchmarks.adoption`."""
