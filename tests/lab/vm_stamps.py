"""What is asked of an emulated card that has a clock: run in a virtual machine by test_vm_stamps.

Prints one line of JSON.
"""

import json
import os
import signal
import time
from typing import Any

from kproxy.traffic import hwstamp, phc
from kproxy.traffic.hwstamp import Stamps

DEADLINE = 60.0


def tried(name: str) -> dict[str, Any]:
    """Have a card stamp, and its owner end and be killed; return what was seen."""
    found: dict[str, Any] = {
        "driver": hwstamp.driver(name),
        "obstacle": hwstamp.ability(name).obstacle(),
        "before": hwstamp.config(name),
    }
    with hwstamp.arrivals(Stamps.HARDWARE, name, print) as clock:
        assert clock is not None
        found["meanwhile"] = hwstamp.config(name)
        found["clocks"] = clocks(clock)
    found["after"] = hwstamp.config(name)
    found["killed"] = killed(name, found["before"])
    return found


def clocks(clock: phc.CardClock) -> list[tuple[bool, float, int]]:
    """Read a card's clock by both requests: by the newer one, seconds behind ours, error in ns."""
    found = []
    for _ in range(2):
        now = clock.read()
        behind = time.time() - (now.at_ns - now.offset_ns) / 1e9
        found.append((clock._extended, behind, now.error_ns))
        clock._extended = False
    return found


def killed(name: str, before: hwstamp.Config) -> list[hwstamp.Config]:
    """Kill who has a card stamp; return how it was set then, and is when the keeper has done."""
    reader, writer = os.pipe()
    owner = os.fork()  # not a new program: these start slowly here
    if owner == 0:
        with hwstamp.arrivals(Stamps.HARDWARE, name, print):
            os.write(writer, b"x")
            signal.pause()
    os.read(reader, 1)
    found = [hwstamp.config(name)]
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    deadline = time.monotonic() + DEADLINE
    while hwstamp.config(name) != before and time.monotonic() < deadline:
        time.sleep(0.2)  # nothing tells; the caller judges what is there in the end
    return [*found, hwstamp.config(name)]


if __name__ == "__main__":
    print(json.dumps(tried("eth0")))
