"""Which interface a measurement may use, and to whose MAC its frames go."""

from ipaddress import ip_address, ip_network

import pytest

from kproxy.errors import MeasurementError, UsageError
from kproxy.kernel.links.card import Card
from kproxy.kernel.routes.fake import FakeRoutes
from kproxy.kernel.routes.types import Query, Route, RouteKind
from kproxy.traffic.remote import interface

GATEWAY = ip_address("192.0.2.254")
OWN = ip_address("192.0.2.1")
CARDS = {
    1: Card(index=1, name="lo", loopback=True),
    2: Card(index=2, name="eth0", mac="02:00:00:00:00:02"),
    3: Card(index=3, name="eth1", mac="02:00:00:00:00:03"),
    4: Card(index=4, name="eth2", up=False),
    5: Card(index=5, name="eth3", carrier=False),
}
UNICAST = RouteKind.UNICAST


def routes() -> FakeRoutes:
    table = {
        ip_network("0.0.0.0/0"): Route(kind=UNICAST, device=2, gateway=ip_address("10.0.0.1")),
        ip_network("192.0.2.0/24"): Route(kind=UNICAST, device=3, source=OWN),
        ip_network("192.0.2.1/32"): Route(kind=RouteKind.LOCAL, device=1),
        ip_network("10.96.0.0/12"): Route(kind=UNICAST, device=3, gateway=GATEWAY, source=OWN),
    }
    found = FakeRoutes(table, {3: (ip_address("169.254.1.1"), OWN)})
    found.neighbours[3, GATEWAY] = "02:00:00:00:00:fe"
    return found


@pytest.mark.parametrize(
    ("name", "complaint", "remedy"),
    [
        ("eth9", "no such interface", "eth0, eth1, eth2, eth3, lo"),
        ("eth2", "it is down", "ip link set eth2 up"),
        ("eth3", "no carrier", "cable"),
        ("eth0", "carries the default route", "--yes-use-default-route"),
    ],
)
def test_an_interface_that_cannot_be_used_is_named(name: str, complaint: str, remedy: str) -> None:
    with pytest.raises(UsageError, match=complaint) as told:
        interface.checked(name, CARDS, routes(), may_be_default=False)
    assert name in told.value.message
    assert remedy in told.value.remedy


def test_the_default_routes_device_is_used_if_it_is_allowed() -> None:
    assert interface.checked("eth0", CARDS, routes(), may_be_default=True) == CARDS[2]
    assert interface.checked("eth1", CARDS, routes(), may_be_default=False) == CARDS[3]


@pytest.mark.parametrize(("address", "most"), [("10.0.0.1", 1472), ("fd00::1", 1452)])
def test_a_payload_must_fit_into_one_packet(address: str, most: int) -> None:
    card = Card(index=9, name="eth9", mtu=1500)
    interface.check_size(card, most, ip_address(address))
    with pytest.raises(UsageError, match=f"at most {most} fit"):
        interface.check_size(card, most + 1, ip_address(address))


def test_frames_to_a_service_go_to_the_gateways_mac() -> None:
    found = interface.way(CARDS[3], ip_address("10.96.0.10"), routes())
    assert (found.source, found.source_mac) == (OWN, "02:00:00:00:00:03")
    assert (found.next_hop, found.next_hop_mac) == (GATEWAY, "02:00:00:00:00:fe")


def test_frames_to_a_neighbour_go_to_its_own_mac() -> None:
    known = routes()
    known.neighbours[3, ip_address("192.0.2.7")] = "02:00:00:00:00:07"
    assert interface.way(CARDS[3], ip_address("192.0.2.7"), known).next_hop_mac.endswith(":07")


def test_a_tunnel_takes_no_frames() -> None:
    tunnel = Card(index=3, name="tun0", mac="")
    with pytest.raises(UsageError, match="tun0 has no MAC"):
        interface.way(tunnel, ip_address("10.96.0.10"), routes())


def test_an_address_of_this_host_is_no_destination_for_frames() -> None:
    with pytest.raises(UsageError, match="an address of this host") as told:
        interface.way(CARDS[3], OWN, routes())
    assert "--probe" in told.value.remedy


def test_without_a_route_through_the_interface_nothing_is_sent() -> None:
    with pytest.raises(UsageError, match="no route leads there through eth1"):
        interface.way(CARDS[3], ip_address("198.51.100.1"), routes())


def test_a_guess_of_the_kernel_that_all_are_neighbours_is_no_route() -> None:
    class Guessing(FakeRoutes):
        """Like the kernel: asked for a device, it takes what no route knows for a neighbour."""

        def lookup(self, query: Query) -> Route:
            if query.leaves_by:
                return Route(kind=UNICAST, device=query.leaves_by)
            return super().lookup(query)

    with pytest.raises(UsageError, match="no route"):
        interface.way(CARDS[3], ip_address("198.51.100.1"), Guessing(routes().table))


def test_a_device_without_address_cannot_send() -> None:
    known = routes()
    known.table[ip_network("10.96.0.0/12")] = Route(kind=UNICAST, device=3, gateway=GATEWAY)
    known.addresses.clear()
    with pytest.raises(UsageError, match="no IPv4 address"):
        interface.way(CARDS[3], ip_address("10.96.0.10"), known)


def test_a_gateway_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known, asked = routes(), []
    known.neighbours.clear()
    monkeypatch.setattr(interface, "_poke", lambda card, address: asked.append(address))
    monkeypatch.setattr(interface, "NEIGHBOUR_SECONDS", 0.05)
    with pytest.raises(MeasurementError, match=r"192\.0\.2\.254 does not answer on eth1"):
        interface.way(CARDS[3], ip_address("10.96.0.10"), known)
    assert asked == [GATEWAY]


def test_a_gateway_that_answers_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    known = routes()
    known.neighbours[3, GATEWAY] = ""  # asked for, and not answered yet

    def answer(card: Card, address: object) -> None:
        known.neighbours[3, GATEWAY] = "02:00:00:00:00:fd"

    monkeypatch.setattr(interface, "_poke", answer)
    found = interface.way(CARDS[3], ip_address("10.96.0.10"), known)
    assert found.next_hop_mac.endswith(":fd")
