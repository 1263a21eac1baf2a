"""How good a network is: metrics, thresholds, intervals, benchmarks of bias."""
