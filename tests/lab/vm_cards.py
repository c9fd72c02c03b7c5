"""What is done to emulated cards in a virtual machine: ``vm_cards.py``, run in it by test_vm_nic.

Prints lines of JSON; a line ``{"ask": ...}`` asks for a cable to be pulled or plugged in.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import netns_samples as samples
import simulated_cards as cards

from netns import cable, lab, wait
from netns.cable import CarrierWatch
from netns.errors import NetnsError
from netns.lab import Lab
from netns.uplink import Attachment

STATE = Path("/run/vm-lab")
BEGAN = time.monotonic()


def say(what: str, value: Any) -> None:
    print(json.dumps({what: value, "at": round(time.monotonic() - BEGAN, 1)}), flush=True)


def settings(name: str) -> dict[str, Any]:
    """What can be set at a card; its driver is given the time to find its carrier again."""
    carrier = Path("/sys/class/net", name, "carrier")
    wait.wait_until(lambda: carrier.read_text() == "1\n", 60, f"the carrier of {name}")
    found = cards.furniture(name, groups=("-k", "-c", "-g"))
    found["-k"] = [line for line in str(found["-k"]).splitlines() if "[fixed]" not in line]
    return found


def differing(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {key: [before[key], after[key]] for key in before if before[key] != after[key]}


def by_driver() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(Path("/sys/class/net").iterdir()):
        driver = path / "device" / "driver"
        if driver.exists():
            found.setdefault(driver.resolve().name, []).append(path.name)
    return found


def pulled_by_hand(running: Lab) -> None:
    """The cable of the host ``left`` is pulled outside, by QEMU; the kernel is to notice."""
    with running["left"].call(CarrierWatch, "wire") as watch:
        asked = time.monotonic_ns()
        say("ask", "pull")
        gone = watch.await_state(up=False, timeout=60)
        say("noticed", round((gone - asked) / 1e6, 1))
        say("ask", "plug")
        watch.await_state(up=True, timeout=60)
    samples.arrives(running["left"], running["right"], "192.0.2.2")


def pulled_by_software(running: Lab) -> None:
    """QEMU's hub is a switch: a card keeps its carrier whatever the other one does."""
    try:
        running.plug("left", "wire", connected=False)
    except NetnsError as refusal:
        say("refused", str(refusal))
    samples.arrives(running["left"], running["right"], "192.0.2.2")


def whole(first: str, second: str) -> None:
    """Take two cards, use them, spoil one, and look whether it is as before."""
    cards.furnish(first)
    cards.ip("link", "set", second, "up")
    time.sleep(1)
    before = settings(first)
    with Lab(cards.wired(first, second), name="vm", state_dir=STATE) as running:
        for address in ("192.0.2.2", "2001:db8::2"):
            samples.arrives(running["left"], running["right"], address)
        report = running.cards()[0]
        say(
            "card",
            {name: getattr(report, name) for name in report.__slots__ if name != "interrupts"},
        )
        say("interrupts", [each.number for each in report.interrupts])
        running["left"].call(cards.ethtool, "-K", "wire", "gro", "off")
        running["left"].call(cards.ethtool, "-G", "wire", "rx", "128", "tx", "128")
        cards_seen = running["left"].call(cards.ethtool, "-g", "wire")
        say("spoilt", "128" in cards_seen)
        if report.driver == "e1000e":
            running["left"].call(cards.ethtool, "-C", "wire", "rx-usecs", "100")
            pulled_by_software(running)
        else:
            pulled_by_hand(running)
    say("back", differing(before, settings(first)))
    killed(first, second, before)
    for name in (first, second):
        cards.ip("link", "set", name, "down")
        cards.ip("address", "flush", "dev", name)


def killed(first: str, second: str, before: dict[str, Any]) -> None:
    """Have an owner of two cards that is killed, and repair what it leaves."""
    reader, writer = os.pipe()
    owner = os.fork()  # not a new program: these start slowly here
    if owner == 0:
        with Lab(cards.wired(first, second), name="vm", state_dir=STATE):
            os.write(writer, b"x")
            signal.pause()
    os.read(reader, 1)
    away = not Path("/sys/class/net", first).exists()
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    lab.repair(STATE)
    say("killed", [away, differing(before, settings(first))])


def main() -> None:
    cable.CARRIER_SECONDS = 3.0
    cards.ip("link", "set", "lo", "up")
    found = by_driver()
    say("drivers", found)
    for names in found.values():
        whole(*names)
    first, second = found["virtio_net"]
    for name in (first, second):
        cards.ip("link", "set", name, "up")
    topology = cards.wired(first, first, Attachment.MACVLAN, mtu=1400)
    with Lab(topology, name="vm", state_dir=STATE) as running:
        samples.arrives(running["left"], running["right"], "192.0.2.2")
    say("macvlan", cards.ip("-br", "link"))


if __name__ == "__main__":
    main()
