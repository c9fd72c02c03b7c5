"""Where a pod goes: which nodes it may run on, and which of them is the best."""
