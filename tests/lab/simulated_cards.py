"""Pairs of simulated network cards (netdevsim), wired to each other, and how a card is set."""

import contextlib
import itertools
import os
import subprocess
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from netns import wait
from netns.errors import WaitTimeout
from netns.topology import Host, Interface, Link, Topology
from netns.uplink import Attachment, Uplink

BUS = Path("/sys/bus/netdevsim")
CARRIER_SECONDS = 30.0
_numbers = itertools.count(1)


def ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def ethtool(*words: str) -> str:
    done = subprocess.run(["ethtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ethtool {' '.join(words)}: {done.stderr}"
    return done.stdout


class Pair:
    """Two cards with a cable between them, as any machine might have them."""

    def __init__(self) -> None:
        self.numbers = (next(_numbers), next(_numbers))
        for number in self.numbers:
            (BUS / "new_device").write_text(f"{number} 1")
        here = f"/proc/{os.getpid()}/ns/net"
        descriptor = os.open(here, os.O_RDONLY)
        first, second = self.names
        ends = [f"{descriptor}:{_index(each)}" for each in (first, second)]
        (BUS / "link_device").write_text(" ".join(ends))
        os.close(descriptor)

    @property
    def names(self) -> tuple[str, str]:
        """What they are called now; in whichever namespace /sys shows."""
        first, second = (
            next((BUS / "devices" / f"netdevsim{number}" / "net").iterdir()).name
            for number in self.numbers
        )
        return first, second

    def remove(self) -> None:
        for number in self.numbers:
            (BUS / "del_device").write_text(f"{number}")


def _index(name: str) -> int:
    return int(Path("/sys/class/net", name, "ifindex").read_text())


def wired(
    first: str,
    second: str,
    kind: Attachment = Attachment.WHOLE,
    *,
    mtu: int = 1500,
    mode: str = "bridge",
) -> Topology:
    """Hosts ``left`` and ``right``, joined by two cards; both IP versions."""
    ends = [
        Interface(
            host=host,
            name="wire",
            addresses=(
                ip_interface(f"192.0.2.{number}/24"),
                ip_interface(f"2001:db8::{number}/64"),
            ),
            mtu=mtu,
            uplink=Uplink(nic=nic, kind=kind, mode=mode),
        )
        for number, (host, nic) in enumerate((("left", first), ("right", second)), 1)
    ]
    return Topology(
        hosts=(Host(name="left"), Host(name="right")), links=(Link(a=ends[0], b=ends[1]),)
    )


def furnish(name: str) -> None:
    """Set a card in every way that must survive a lab."""
    ip("link", "set", name, "mtu", "1400", "txqueuelen", "77", "address", "02:00:00:aa:bb:01")
    ip("link", "set", name, "up", "promisc", "on")
    ip("address", "add", "198.51.100.7/24", "dev", name, "label", f"{name}:x")
    ip("address", "add", "198.51.100.8/24", "dev", name)
    ip("address", "add", "203.0.113.1", "peer", "203.0.113.2", "dev", name)
    ip("address", "add", "2001:db8:7::7/64", "dev", name, "nodad")
    ip("address", "add", "2001:db8:7::8/64", "dev", name, "nodad", "valid_lft", "3000",
       "preferred_lft", "2000")  # fmt: skip
    ip("route", "add", "192.0.2.0/25", "via", "198.51.100.1", "dev", name, "metric", "50")
    ip("route", "add", "192.0.2.128/25", "dev", name, "table", "77", "src", "198.51.100.8")
    ip("route", "add", "local", "198.18.0.0/24", "dev", name, "table", "local", "proto", "static")
    ip("-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8:7::1", "dev", name)
    for address in ("198.51.100.9", "2001:db8:7::9"):
        ip("neighbour", "add", address, "lladdr", "02:00:00:00:00:09", "dev", name)
    ip("link", "property", "add", "dev", name, "altname", f"other-{name}")
    Path("/proc/sys/net/ipv4/conf", name, "rp_filter").write_text("2")
    Path("/proc/sys/net/ipv6/conf", name, "hop_limit").write_text("33")
    Path("/proc/sys/net/ipv4/neigh", name, "gc_stale_time").write_text("99")


def spoil(name: str) -> None:
    """Change everything of a card that a lab's user may change."""
    ethtool("-K", name, "gro", "off")
    ethtool("-C", name, "rx-usecs", "100", "adaptive-rx", "on")
    ethtool("-G", name, "rx", "512", "tx", "256")
    ethtool("-A", name, "rx", "on", "tx", "on")
    ip("link", "set", name, "mtu", "1300", "txqueuelen", "5")


def furniture(
    name: str, groups: tuple[str, ...] = ("-k", "-c", "-g", "-a", "-l")
) -> dict[str, Any]:
    """Everything that is to be seen of a card, as iproute2 and ethtool tell it.

    A card that has just been switched on has its carrier a while later.
    """
    with contextlib.suppress(WaitTimeout):
        wait.wait_until(
            lambda: "NO-CARRIER" not in ip("link", "show", name),
            CARRIER_SECONDS,
            name,
            interval=0.1,
        )
    return {
        "link": ip("-o", "link", "show", name).partition(": ")[2].replace("UNKNOWN", "UP"),
        "addresses": _without_lifetimes(ip("address", "show", name)).replace("UNKNOWN", "UP"),
        "routes": _of_people(ip("route", "show", "table", "all", "dev", name)),
        "routes6": _of_people(ip("-6", "route", "show", "table", "all", "dev", name)),
        "neighbours": ip("neighbour", "show", "dev", name, "nud", "permanent"),
        "rp_filter": Path("/proc/sys/net/ipv4/conf", name, "rp_filter").read_text(),
        "hop_limit": Path("/proc/sys/net/ipv6/conf", name, "hop_limit").read_text(),
        **{words: ethtool(words, name) for words in groups},
        "gc_stale_time": Path("/proc/sys/net/ipv4/neigh", name, "gc_stale_time").read_text(),
    }


def _of_people(routes: str) -> list[str]:
    """Leave out what the kernel and the simulation add by themselves, some of it later."""
    lines = [line for line in routes.splitlines() if "proto kernel" not in line]
    return [" ".join(word for word in line.split() if word != "rt_trap") for line in lines]


def _without_lifetimes(text: str) -> str:
    words = text.split()
    return " ".join(
        word
        for before, word in zip(["", *words], words, strict=False)
        if (before not in ("valid_lft", "preferred_lft") or word == "forever")
        and word != "tentative"
    )
