"""Looking at a machine and timing it: doctor, probes, bench."""
