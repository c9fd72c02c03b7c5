"""What should be: trackers, endpoint choice, diff, schedule. Pure: no clock, no I/O."""
