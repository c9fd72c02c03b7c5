"""The real receiver as a program, with one action: it writes to a file when it begins and ends.

``remediation_program.py LOG CONFIG``. Its tests kill it, so it must be a process of its own.
"""

import os
import sys
import time

from kproxy.monitoring.remediation import __main__ as program
from kproxy.monitoring.remediation.actions import catalog
from kproxy.monitoring.remediation.seams import Limits, Outcome, Target, Tools, Verdict

PATH = sys.argv[1]


class Mend:
    """Says in the file what it does; takes long enough to be killed in the middle."""

    name = "mend"
    summary = "writes to a file"
    needs = frozenset({"node"})
    limits = Limits(runs=100_000, cool_down=0.001, verify_within=5.0, verify_every=0.01)

    def __init__(self, tools: Tools) -> None:
        self._log = os.open(PATH, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def check(self, target: Target) -> Verdict:
        return Verdict(True, "it is broken")

    def run(self, target: Target) -> Outcome:
        self._say("begin", target)
        time.sleep(0.01)  # nothing happens: the time in which it can be killed
        self._say("end", target)
        return Outcome(True, "mended")

    def verify(self, target: Target) -> Verdict:
        return Verdict(True, "it is whole")

    def _say(self, what: str, target: Target) -> None:
        os.write(self._log, f"{what} {target.labels['trouble']} {target.node}\n".encode())


if __name__ == "__main__":
    catalog.ACTIONS = {"mend": Mend}
    sys.exit(program.main(["--config", sys.argv[2]]))
