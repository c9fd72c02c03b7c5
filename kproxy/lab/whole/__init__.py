"""A whole cluster in a lab: every part a process in its host, started, broken and looked at."""
