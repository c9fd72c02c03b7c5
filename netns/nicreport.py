"""What a measurement should say of a network card, and what of it spoils measurements.

The inventory (who drives it, where its interrupts go) is read where the card lives before it is
taken, because ``/sys`` shows the cards of one namespace only; how it is set is read when asked.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from netns import ethtool, nicstate
from netns.ethtool import Ethtool, Group
from netns.rawnetlink import Netlink

_NET = Path("/sys/class/net")
_IRQ = Path("/proc/irq")
_DEVICE_LEVELS = 3
"""A card's interrupts are listed at its device, or at the bus device that it is a part of."""

SLOW_INTERRUPT_USECS = 50
_TOLD = (Group.LINK_MODES, *ethtool.SETTABLE)
_DUPLEX = {0: "half", 1: "full"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """An interrupt of a card: to which CPUs it may go, and to which it goes."""

    number: int
    name: str
    cpus: str
    effective: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Who drives a card, where it is, and the numbers of its interrupts."""

    driver: str
    version: str
    firmware: str
    bus: str
    interrupts: tuple[int, ...]

    @classmethod
    def decode(cls, data: dict[str, Any]) -> "Inventory":
        """Return what :func:`dataclasses.asdict` has made plain."""
        return cls(**{**data, "interrupts": tuple(data["interrupts"])})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NicReport:
    """A card of a lab as a result file has it. ``speed_mbps`` None: there is none, or no link."""

    host: str
    interface: str
    nic: str
    attachment: str
    driver: str
    version: str
    firmware: str
    bus: str
    mac: str
    mtu: int
    speed_mbps: int | None
    duplex: str
    offloads: tuple[str, ...]
    rings: dict[str, int]
    queues: dict[str, int]
    coalescing: dict[str, int]
    pause: dict[str, int]
    energy: dict[str, int]
    timestamps: dict[str, list[str]]
    interrupts: tuple[Interrupt, ...]
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> list[str]:
        """Return the warnings, each with host and card."""
        return [f"{self.host}: {self.nic} {warning}" for warning in self.warnings]


def inventory(name: str) -> Inventory:
    """Return the inventory of a card in the namespace that ``/sys`` shows."""
    found = ethtool.driver(name)
    device = _NET / name / "device"
    return Inventory(
        **found._asdict(),
        interrupts=tuple(_interrupts(device)),
    )


def report(host: str, interface: str, nic: str, attachment: str, found: Inventory) -> NicReport:
    """Return the report of a card that is called ``interface`` in the thread's namespace."""
    with Ethtool() as tool, Netlink() as netlink:
        values = {group: _plain(tool.get(interface, group)) for group in _TOLD}
        told = _link(netlink, interface)
        made = NicReport(
            host=host,
            interface=interface,
            nic=nic,
            attachment=attachment,
            driver=found.driver,
            version=found.version,
            firmware=found.firmware,
            bus=found.bus,
            mac=told[0],
            mtu=told[1],
            speed_mbps=values[Group.LINK_MODES].get("speed"),
            duplex=_DUPLEX.get(values[Group.LINK_MODES].get("duplex", -1), "unknown"),
            offloads=tuple(sorted(tool.active(interface))),
            rings=values[Group.RINGS],
            queues=values[Group.CHANNELS],
            coalescing=values[Group.COALESCING],
            pause=values[Group.PAUSE],
            energy=values[Group.ENERGY],
            timestamps=tool.timestamps(interface),
            interrupts=tuple(map(_interrupt, found.interrupts)),
        )
    return dataclasses.replace(made, warnings=tuple(warnings(made)))


def warnings(card: NicReport) -> list[str]:
    """Return what of a card's settings spoils measurements, each with what to do."""
    on, tune = set(card.offloads), f"ethtool -C {card.nic}"
    found = [
        (
            "rx-gro" in on or "rx-gro-hw" in on,
            f"merges received packets (GRO): ethtool -K {card.nic} gro off",
        ),
        ("rx-lro" in on, f"merges received packets (LRO): ethtool -K {card.nic} lro off"),
        (
            bool(card.coalescing.get("adaptive-rx") or card.coalescing.get("adaptive-tx")),
            f"adapts its interrupts to the load: {tune} adaptive-rx off adaptive-tx off",
        ),
        (
            card.coalescing.get("rx-usecs", 0) >= SLOW_INTERRUPT_USECS,
            f"delays interrupts by up to {card.coalescing.get('rx-usecs', 0)} µs: "
            f"{tune} rx-usecs 0",
        ),
        (
            bool(card.energy.get("enabled")),
            f"sleeps between packets (EEE): ethtool --set-eee {card.nic} eee off",
        ),
        (card.duplex == "half", "runs half duplex: check cable and switch"),
        (
            bool(card.pause.get("rx") or card.pause.get("tx")),
            "pause frames turn loss into delay, and reach other hosts: "
            f"ethtool -A {card.nic} rx off tx off",
        ),
        (
            len(card.interrupts) > 1 and len({each.effective for each in card.interrupts}) == 1,
            "all its interrupts go to one CPU: spread them over smp_affinity",
        ),
    ]
    return [text for applies, text in found if applies]


def _interrupts(device: Path) -> list[int]:
    place = device.resolve()
    for level in (place, *place.parents)[:_DEVICE_LEVELS]:
        listed = level / "msi_irqs"
        if listed.is_dir():
            return sorted(int(each.name) for each in listed.iterdir())
        if _read(level / "irq") not in ("", "0"):
            return [int(_read(level / "irq"))]
    return []


def _interrupt(number: int) -> Interrupt:
    place = _IRQ / str(number)
    names = [each.name for each in place.iterdir() if each.is_dir()] if place.is_dir() else []
    return Interrupt(
        number=number,
        name=", ".join(names),
        cpus=_read(place / "smp_affinity_list"),
        effective=_read(place / "effective_affinity_list"),
    )


def _plain(values: ethtool.Values) -> dict[str, int]:
    return {key: int(value) for key, value in values.items()}


def _link(netlink: Netlink, name: str) -> tuple[str, int]:
    """Return MAC and MTU."""
    for _, _, found in nicstate.links(netlink):
        if nicstate.names(found)[0] == name:
            return found[nicstate.IFLA_ADDRESS].hex(":"), int.from_bytes(
                found[nicstate.IFLA_MTU], sys.byteorder
            )
    return "", 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
