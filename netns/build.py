"""From a topology to interfaces: what is made in which order, and how it is taken away again.

The order matters more than it seems:

1. all namespaces, with ``lo`` up and settings written: new interfaces inherit ``conf.default``;
2. all links, then all up: a veth has a carrier only when both of its ends are up;
3. the carrier is *waited for*: the kernel notices it in a worker of its own, and until then it
   drops packets without a word and keeps IPv6 addresses tentative;
4. addresses, neighbours, remaining settings (those of interfaces), routes.

Each namespace is visited once per step, with one netlink socket.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from pyroute2 import IPRoute

from netns import addressing, link, namespace, nic, sysctl, wait
from netns.errors import NetnsError, WaitTimeout
from netns.nic import Taken
from netns.topology import Host, Interface, Neighbour, Topology

_CARRIER_DEADLINE = 10.0
_POLL = 0.002
_POLL_CARD = 0.05

NamespaceOf = Callable[[str], str]  # host or segment → name of its namespace
_PerHost = dict[str, list[Interface]]


def build(
    more: Topology, before: Topology, namespace_of: NamespaceOf, cards: Iterable[Taken] = ()
) -> None:
    """Make ``more``, where ``before`` is there already; every interface must have its MAC.

    ``cards``: those of this machine that ``more`` takes, which have been written down.

    Raises :class:`netns.errors.NetnsError` as soon as something fails and leaves what was made;
    :func:`undo` takes it away.
    """
    known_segments = {segment.name for segment in before.segments}
    for segment in more.segments:
        if not segment.physical and segment.name not in known_segments:
            _make_switch(segment.name, namespace_of(segment.name))
    pending = {host.name: _make_host(host, namespace_of(host.name)) for host in more.hosts}
    _make_links(more, namespace_of)
    _make_ports(more, namespace_of)
    ends = {(each.host, each.name): each for each in more.interfaces()}
    for card in cards:
        nic.take(card, ends[card.host, card.interface])
    interfaces: _PerHost = defaultdict(list)
    for interface in more.interfaces():
        interfaces[interface.host].append(interface)
    for owner, members in interfaces.items():
        with link.netlink(namespace_of(owner)) as ipr:
            for interface in members:
                link.bring_up(ipr, interface)
                if interface.impairment is not None:
                    link.impair(ipr, interface.name, interface.impairment)
    after = before.merged(more)
    neighbours = addressing.neighbours_of(after) - addressing.neighbours_of(before)
    hosts = {host.name: host for host in more.hosts}
    for name in dict.fromkeys((*interfaces, *hosts, *(owner for owner, _ in neighbours))):
        host = hosts.get(name, Host(name=name))
        static = [entry for owner, entry in neighbours if owner == name]
        _configure(host, interfaces[name], static, pending.get(name, {}), namespace_of(name))


def _make_switch(segment: str, namespace_name: str) -> None:
    namespace.create(namespace_name)
    with link.netlink(namespace_name) as ipr:
        sysctl.write_existing(sysctl.SWITCH)
        link.bring_up_loopback(ipr)
        link.create_bridge(ipr, segment)


def _make_host(host: Host, namespace_name: str) -> dict[str, str]:
    """Returns the settings that do not exist yet: those of interfaces to come."""
    namespace.create(namespace_name)
    with link.netlink(namespace_name) as ipr:
        sysctl.write_existing(sysctl.BASELINE)
        link.bring_up_loopback(ipr)
        return sysctl.write_existing(host.sysctls)


def _make_links(topology: Topology, namespace_of: NamespaceOf) -> None:
    by_host = defaultdict(list)
    for each in topology.links:
        if not each.physical:
            by_host[each.a.host].append(each)
    for host, links in by_host.items():
        with link.netlink(namespace_of(host)) as ipr:
            for each in links:
                link.create_veth(ipr, each.a, each.b, namespace_of(each.b.host))


def _make_ports(topology: Topology, namespace_of: NamespaceOf) -> None:
    for segment in topology.segments:
        if segment.physical:
            continue
        with link.netlink(namespace_of(segment.name)) as ipr:
            for member in segment.interfaces:
                port = link.port_of(segment.name, member)
                link.create_veth(ipr, port, member, namespace_of(member.host))
                link.join_bridge(ipr, port, member)
                if port.impairment is not None:
                    link.impair(ipr, port.name, port.impairment)


def _configure(
    host: Host,
    interfaces: list[Interface],
    static: Iterable[Neighbour],
    settings: dict[str, str],
    namespace_name: str,
) -> None:
    names = [interface.name for interface in interfaces if interface.uplink is None]
    with link.netlink(namespace_name) as ipr:
        _await_carrier(ipr, host.name, names)
        _await_cards(ipr, [interface for interface in interfaces if interface.uplink])
        for interface in interfaces:
            for address in interface.addresses:
                link.add_address(ipr, interface, address)
        for neighbour in (*static, *host.neighbours):
            link.set_neighbour(ipr, host.name, neighbour)
        sysctl.write_all(settings, host.name)
        for route in addressing.routes_of(host, interfaces):
            link.set_route(ipr, host.name, route)
        sixes = [one.ip for each in interfaces for one in each.addresses if one.version == 6]
        if sixes:
            wait.wait_until(
                lambda: link.addresses_usable(ipr, sixes),
                _CARRIER_DEADLINE,
                f"IPv6 addresses of {host.name}",
                interval=_POLL,
            )


def await_carrier(host: str, names: Sequence[str], namespace_name: str) -> None:
    """Wait until packets pass at these interfaces. Raises :class:`netns.errors.WaitTimeout`."""
    with link.netlink(namespace_name) as ipr:
        _await_carrier(ipr, host, names)


def _await_carrier(ipr: IPRoute, host: str, names: Sequence[str]) -> None:
    wait.wait_until(
        lambda: link.carrier_up(ipr, names),
        _CARRIER_DEADLINE,
        f"carrier of {', '.join(names)} in {host}",
        interval=_POLL,
    )


def _await_cards(ipr: IPRoute, cards: Iterable[Interface]) -> None:
    for interface in cards:
        try:
            wait.wait_until(
                functools.partial(link.card_up, ipr, interface.name),
                _CARRIER_DEADLINE,
                "carrier",
                interval=_POLL_CARD,
            )
        except WaitTimeout:
            problem = f"{interface.uplink} has no carrier after {_CARRIER_DEADLINE:g} s"
            remedy = "plug its cable in, and see that the other end is up"
            raise NetnsError(f"interface {interface}: {problem}", remedy=remedy) from None


def unlink(gone: Topology, left: Topology, namespace_of: NamespaceOf) -> None:
    """Take the links of ``gone`` away from what is ``left``, whose hosts go on; absent is fine.

    At once, and not when the kernel gets round to the deleted namespace at the other end: a new
    link may want the same name.
    """
    hosts = {host.name for host in left.hosts}
    doomed: dict[str, list[str]] = defaultdict(list)
    for each in gone.links:
        for end in each.interfaces:
            if end.host in hosts and not each.physical:
                doomed[end.host].append(end.name)
    segments = {segment.name for segment in left.segments if not segment.physical}
    for segment in gone.segments:
        for member in segment.interfaces:
            if segment.name in segments:
                doomed[segment.name].append(link.port_of(segment.name, member).name)
    for owner, names in doomed.items():
        if not namespace.exists(namespace_of(owner)):
            continue
        with link.netlink(namespace_of(owner)) as ipr:
            for name in names:
                link.delete(ipr, name)


def forget_neighbours(before: Topology, after: Topology, namespace_of: NamespaceOf) -> None:
    """Delete the entries that those who are left have of those who are gone."""
    hosts = {host.name for host in after.hosts}
    doomed: dict[str, list[Neighbour]] = defaultdict(list)
    for host, entry in addressing.neighbours_of(before) - addressing.neighbours_of(after):
        if host in hosts:
            doomed[host].append(entry)
    for host, entries in doomed.items():
        with link.netlink(namespace_of(host)) as ipr:
            for entry in entries:
                link.delete_neighbour(ipr, host, entry)
