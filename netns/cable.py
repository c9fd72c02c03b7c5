"""Cables that are pulled and plugged in again, and how long it takes until that is noticed.

A cable into a switch of the lab is pulled at the switch: its port goes down. A cable between two
cards of this machine cannot be pulled by software; what comes nearest is to switch the other end
off, which takes the carrier away where cards are wired to each other without a switch. Whether it
does is watched, never assumed.
"""

import socket
import time
from collections.abc import Sequence
from typing import Self

from netns import build, link, namespace, nicstate, wait
from netns.errors import NetnsError, WaitTimeout
from netns.journal import Ledger, namespace_name
from netns.nicstate import State
from netns.rawnetlink import NEW_LINK, Netlink
from netns.topology import Interface, Segment
from netns.uplink import Attachment

CARRIER_SECONDS = 10.0
_LOOK_AGAIN = 0.02
_LINK_GROUP = 1
_LOWER_UP = 0x10000

Pulled = dict[tuple[str, str], list[tuple[str, State]]]
"""Cards that are off as the other ends of pulled cables: their namespaces, and how they were."""


class CarrierWatch:
    """Hears of an interface's carrier from the kernel; a context manager.

    It is of the network namespace of the thread that makes it, and hears all that happens from
    then on. Raises :class:`NetnsError` if there is no such interface.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        with link.naming(f"interface {name}"):
            self._index = socket.if_nametoindex(name)
        self._netlink = Netlink(groups=_LINK_GROUP)

    def await_state(self, *, up: bool, timeout: float) -> int:
        """Wait until the kernel says that there is a carrier, or none; return when that was read.

        Nanoseconds of the monotonic clock. Raises :class:`WaitTimeout` after ``timeout`` seconds.
        """
        why = f"carrier of {self.name} to {'come' if up else 'go'}"
        deadline = time.monotonic() + timeout
        while True:
            wait.wait_readable(self._netlink.fileno(), deadline - time.monotonic(), why)
            messages = self._netlink.receive()
            heard = time.monotonic_ns()
            for message in messages:
                if message.kind != NEW_LINK:
                    continue
                _, _, index, flags, _ = nicstate.LINK.unpack_from(message.body)
                if index == self._index and bool(flags & _LOWER_UP) is up:
                    return heard

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._netlink.__exit__(None, None, None)


def plug(ledger: Ledger, host: str, interface: str, pulled: Pulled, *, connected: bool) -> int:
    """Pull a cable, or plug it in; see :meth:`netns.lab.AttachedLab.plug`.

    ``pulled`` is what this process has pulled, and is kept up to date.
    """
    for joined in ledger.topology.joined():
        for member in joined.interfaces:
            if (member.host, member.name) != (host, interface):
                continue
            if member.uplink is not None:
                others = [each for each in joined.interfaces if each is not member]
                return _plug_card(ledger, member, others, pulled, connected=connected)
            if isinstance(joined, Segment):
                return _plug_port(ledger, joined, member, connected=connected)
    raise NetnsError(f"{host}:{interface} is not plugged into a switch")


def _plug_port(ledger: Ledger, switch: Segment, member: Interface, *, connected: bool) -> int:
    with link.netlink(namespace_name(ledger.name, switch.name)) as ipr:
        done = time.monotonic_ns()
        link.set_state(ipr, link.port_of(switch.name, member).name, up=connected)
    if connected:
        home = namespace_name(ledger.name, member.host)
        build.await_carrier(member.host, [member.name], home)
    return done


def _plug_card(
    ledger: Ledger,
    member: Interface,
    others: Sequence[Interface],
    pulled: Pulled,
    *,
    connected: bool,
) -> int:
    place = (member.host, member.name)
    done = time.monotonic_ns()
    if connected:
        for home, state in pulled.pop(place, []):
            _switch_on(home, state)
        _await(ledger, member, up=True)
        return done
    if place in pulled:
        return done
    whole = [one for one in others if one.uplink and one.uplink.kind is not Attachment.MACVLAN]
    if len(whole) != len(others) or not whole:
        raise _by_hand(member, "its other end is no card of this lab")
    pulled[place] = []
    for other in whole:
        home = namespace_name(ledger.name, other.host)
        state, done = _switch_off(home, other.name)
        pulled[place].append((home, state))
    try:
        _await(ledger, member, up=False)
    except WaitTimeout:
        for home, state in pulled.pop(place):
            _switch_on(home, state)
        problem = f"it keeps its carrier while {', '.join(map(str, whole))} is down"
        raise _by_hand(member, problem) from None
    return done


def _by_hand(member: Interface, why: str) -> NetnsError:
    return NetnsError(f"{member}: {why}", remedy=f"pull the cable of {member.uplink} by hand")


def _switch_off(home: str, name: str) -> tuple[State, int]:
    """Switch a card off; return how it was, because routes and addresses go with it, and when."""
    with namespace.entered(home), link.naming(f"interface {name}"), Netlink() as netlink:
        state = nicstate.capture(name)
        done = time.monotonic_ns()
        nicstate.change(netlink, state.index, mask=nicstate.UP)
        return state, done


def _switch_on(home: str, state: State) -> None:
    if namespace.exists(home):
        with namespace.entered(home), link.naming(f"interface {state.name}"):
            nicstate.restore(state, state.name)


def _await(ledger: Ledger, member: Interface, *, up: bool) -> None:
    why = f"carrier of {member} to {'come' if up else 'go'}"
    with link.netlink(namespace_name(ledger.name, member.host)) as ipr:
        wait.wait_until(
            lambda: link.card_up(ipr, member.name) is up,
            CARRIER_SECONDS,
            why,
            interval=_LOOK_AGAIN,
        )
