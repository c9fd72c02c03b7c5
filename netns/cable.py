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
_BACK_SECONDS = 30.0
_LOOK_AGAIN = 0.02
_LINK_GROUP = 1

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
                if index == self._index and bool(flags & link.LOWER_UP) is up:
                    return heard

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._netlink.close()


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
        _switch_on(pulled.pop(place, []))
        _await(namespace_name(ledger.name, member.host), member.name, up=True)
        return done
    if place in pulled:
        return done
    whole = [one for one in others if one.uplink and one.uplink.kind is not Attachment.MACVLAN]
    if len(whole) != len(others) or not whole:
        raise _by_hand(member, "its other end is no card of this lab")
    # A card that has just been told something may have none for a while: that is no pulled cable.
    _await(namespace_name(ledger.name, member.host), member.name, up=True)
    pulled[place] = []
    for other in whole:
        home = namespace_name(ledger.name, other.host)
        state, done = _switch_off(home, other.name)
        pulled[place].append((home, state))
    try:
        _await(namespace_name(ledger.name, member.host), member.name, up=False)
    except WaitTimeout:
        _switch_on(pulled.pop(place))
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


def _switch_on(cards: list[tuple[str, State]]) -> None:
    """Make cards as they were, and wait until they have a carrier: it may take them seconds."""
    here = [(home, state) for home, state in cards if namespace.exists(home)]
    for home, state in here:
        with namespace.entered(home), link.naming(f"interface {state.name}"):
            nicstate.restore(state, state.name)
    for home, state in here:
        _await(home, state.name, up=True)


def _await(home: str, name: str, *, up: bool) -> None:
    why = f"carrier of {name} in {home} to {'come' if up else 'go'}"
    seconds = _BACK_SECONDS if up else CARRIER_SECONDS
    with link.netlink(home) as ipr:
        wait.wait_until(lambda: link.card_up(ipr, name) is up, seconds, why, interval=_LOOK_AGAIN)
