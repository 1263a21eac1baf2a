"""The place held against a known truth: calibration under shifted priors, alarms, and real clips."""
