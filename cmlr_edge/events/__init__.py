"""What labels do over time: stable events from scores that flicker."""
