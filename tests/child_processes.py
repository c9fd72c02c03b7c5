"""How tests start processes that must not outlive them, also when the tests are killed."""

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Begins the command of a process that is to end with the thread that starts it."""
