"""Frames of many namespaces, all with the same time stamp, are put into the order of the way."""

import frames_of
from frames_of import ACK, ISN, RST, SYN, TCP, UDP, Host, flow

from kproxy.trace import walk
from kproxy.trace.packet import Mark, Way

CLIENT_MAC, NODE_MAC, WORLD_MAC, FAR_MAC, POD_MAC = (f"02:00:00:00:00:0{n}" for n in range(1, 6))
TO_SERVICE = flow("10.0.0.1", 40000, "10.96.0.10", 80)
TO_POD = flow("10.0.0.1", 40000, "10.128.0.5", 8080)


class World:
    """A client, its node, another node with a pod; what is sent between them."""

    def __init__(self) -> None:
        self.client = Host("client", {"eth0": CLIENT_MAC})
        self.node = Host("node", {"client": NODE_MAC, "eth0": WORLD_MAC})
        self.pod = Host("pod", {"eth0": POD_MAC})
        self.hosts = [self.client, self.node, self.pod]

    def carry(self, a: Host, out: str, b: Host, into: str, data: bytes) -> None:
        mac = next(card.mac for card in b.cards.values() if card.name == into)
        a.sees(out, data, mac, out=True)
        b.sees(into, data, mac)

    def there(self, first: bytes, second: bytes) -> None:
        self.carry(self.client, "eth0", self.node, "client", first)
        self.carry(self.node, "eth0", self.pod, "eth0", second)

    def back(self, first: bytes, second: bytes) -> None:
        self.carry(self.pod, "eth0", self.node, "eth0", first)
        self.carry(self.node, "client", self.client, "eth0", second)

    def walk(self, mark: Mark) -> list[walk.Visit]:
        events = {
            host.name: walk.wanted(host.seen, host.cards, mark, TO_SERVICE) for host in self.hosts
        }
        return walk.walk(events, "client")


def story(visits: list[walk.Visit]) -> list[tuple[str, str, str, str]]:
    """Return (way, place, in by, out by) of each visit."""
    return [
        (
            str(visit.way),
            visit.place,
            visit.came.card.name if visit.came else "",
            visit.left.card.name if visit.left else "",
        )
        for visit in visits
    ]


THERE_AND_BACK = [
    ("there", "client", "", "eth0"),
    ("there", "node", "client", "eth0"),
    ("there", "pod", "eth0", ""),
    ("back", "pod", "", "eth0"),
    ("back", "node", "eth0", "client"),
    ("back", "client", "eth0", ""),
]


def test_an_echo_goes_there_and_comes_back() -> None:
    world = World()
    world.there(frames_of.udp(TO_SERVICE), frames_of.udp(TO_POD))
    world.back(frames_of.udp(TO_POD.reverse), frames_of.udp(TO_SERVICE.reverse))
    assert story(world.walk(UDP)) == THERE_AND_BACK


def test_an_answer_without_mark_is_found_by_its_flow() -> None:
    world = World()
    world.there(frames_of.udp(TO_SERVICE), frames_of.udp(TO_POD))
    world.back(
        frames_of.udp(TO_POD.reverse, b"answer"), frames_of.udp(TO_SERVICE.reverse, b"answer")
    )
    assert story(world.walk(UDP)) == THERE_AND_BACK


def test_a_connection_is_opened() -> None:
    world = World()
    world.there(frames_of.tcp(TO_SERVICE), frames_of.tcp(TO_POD))
    answers = [
        frames_of.tcp(way.reverse, SYN | ACK, seq=9, ack=ISN + 1) for way in (TO_POD, TO_SERVICE)
    ]
    world.back(*answers)
    assert story(world.walk(TCP)) == THERE_AND_BACK


def test_a_masqueraded_packet_is_followed_under_another_name() -> None:
    masqueraded = flow("192.0.2.9", 61000, "10.128.0.5", 8080)
    world = World()
    world.there(frames_of.udp(TO_SERVICE), frames_of.udp(masqueraded))
    world.back(frames_of.udp(masqueraded.reverse), frames_of.udp(TO_SERVICE.reverse))
    assert story(world.walk(UDP)) == THERE_AND_BACK


def test_a_packet_that_a_node_keeps_ends_there() -> None:
    world = World()
    world.carry(world.client, "eth0", world.node, "client", frames_of.udp(TO_SERVICE))
    assert story(world.walk(UDP)) == [*THERE_AND_BACK[:1], ("there", "node", "client", "")]


def test_a_packet_lost_on_a_wire_ends_where_it_was_sent() -> None:
    world = World()
    world.carry(world.client, "eth0", world.node, "client", frames_of.udp(TO_SERVICE))
    world.node.sees("eth0", frames_of.udp(TO_POD), POD_MAC, out=True)
    assert story(world.walk(UDP)) == THERE_AND_BACK[:2]


def test_an_answer_lost_on_its_way_back_ends_there() -> None:
    world = World()
    world.there(frames_of.udp(TO_SERVICE), frames_of.udp(TO_POD))
    world.carry(world.pod, "eth0", world.node, "eth0", frames_of.udp(TO_POD.reverse))
    assert story(world.walk(UDP)) == [*THERE_AND_BACK[:4], ("back", "node", "eth0", "")]


def test_a_node_that_refuses_answers_itself() -> None:
    for mark, data, answer in (
        (UDP, frames_of.udp(TO_SERVICE), None),
        (TCP, frames_of.tcp(TO_SERVICE), None),
        (
            TCP,
            frames_of.tcp(TO_SERVICE),
            frames_of.tcp(TO_SERVICE.reverse, RST | ACK, seq=0, ack=ISN + 1),
        ),
    ):
        world = World()
        world.carry(world.client, "eth0", world.node, "client", data)
        refusal = answer or frames_of.unreachable("10.0.0.254", "10.0.0.1", data)
        world.carry(world.node, "client", world.client, "eth0", refusal)
        assert story(world.walk(mark)) == [
            ("there", "client", "", "eth0"),
            ("there", "node", "client", ""),
            ("back", "node", "", "client"),
            ("back", "client", "eth0", ""),
        ]


def test_what_was_never_sent_stays_with_its_sender() -> None:
    assert story(World().walk(UDP)) == [("there", "client", "", "")]


def test_a_switch_between_them_is_a_place_of_its_own() -> None:
    """It floods what it does not know; only the port where the frame is taken counts."""
    world = World()
    ports = {"a": "02:aa", "b": "02:ab", "c": "02:ac", "br0": "02:ad"}
    switch = Host("lan", ports, bridge="abc", ends={"a": 2, "b": 1, "c": 1})
    node = Host("node", {"client": NODE_MAC, "eth0": WORLD_MAC}, ends={"client": 1, "eth0": 1})
    world.node, world.hosts[1] = node, node
    other = Host("other", {"eth0": FAR_MAC}, ends={"eth0": 2})
    world.pod = world.hosts[2] = Host("pod", {"eth0": POD_MAC}, ends={"eth0": 3})
    world.hosts += [switch, other]
    first, second = frames_of.udp(TO_SERVICE), frames_of.udp(TO_POD)
    world.carry(world.client, "eth0", world.node, "client", first)
    world.node.sees("eth0", second, POD_MAC, out=True)
    switch.sees("a", second, POD_MAC, to_us=False)
    switch.sees("b", second, POD_MAC, out=True)
    other.sees("eth0", second, POD_MAC, to_us=False)  # not for it
    switch.sees("c", second, POD_MAC, out=True)
    world.pod.sees("eth0", second, POD_MAC)
    assert story(world.walk(UDP)) == [
        ("there", "client", "", "eth0"),
        ("there", "node", "client", "eth0"),
        ("there", "lan", "a", "c"),
        ("there", "pod", "eth0", ""),
    ]


def test_only_what_goes_from_port_to_port_is_switched() -> None:
    switch = Host("lan", {"a": "02:aa", "b": "02:ab", "up": "02:ac"}, bridge=["a", "b"])
    data = frames_of.udp(TO_SERVICE)
    switch.sees("a", data, POD_MAC)
    switch.sees("b", data, POD_MAC, out=True)
    switch.sees("up", data, POD_MAC, out=True)
    a, b, up = walk.wanted(switch.seen, switch.cards, UDP, TO_SERVICE)
    visits = [
        walk.Visit(place="lan", way=Way.THERE, came=came, left=left)
        for came, left in ((a, b), (a, up), (a, None), (None, b))
    ]
    assert [one.switched for one in visits] == [True, False, False, False]


def test_a_bridge_with_an_address_is_passed_through() -> None:
    world = World()
    node = Host("node", {"client": NODE_MAC, "br0": WORLD_MAC, "port": "02:bb"}, bridge=["port"])
    world.node, world.hosts[1] = node, node
    first, second = frames_of.udp(TO_SERVICE), frames_of.udp(TO_POD)
    world.carry(world.client, "eth0", node, "client", first)
    node.sees("br0", second, POD_MAC, out=True)
    node.sees("port", second, POD_MAC, out=True)
    world.pod.sees("eth0", second, POD_MAC)
    visits = world.walk(UDP)
    assert story(visits)[1][:3] == ("there", "node", "client")
    assert visits[1].left is not None
    assert {visits[1].left.card.name, *visits[1].through} == {"br0", "port"}
    assert story(visits)[2] == ("there", "pod", "eth0", "")


def test_a_packet_to_oneself_goes_over_loopback() -> None:
    here = Host("client", {"lo": "00:00:00:00:00:00"})
    own = flow("127.0.0.1", 40000, "127.0.0.1", 80)
    for one in (own, own.reverse):
        here.sees("lo", frames_of.udp(one), "00:00:00:00:00:00", out=True)
        here.sees("lo", frames_of.udp(one), "00:00:00:00:00:00")
    events = {"client": walk.wanted(here.seen, here.cards, UDP, own)}
    assert story(walk.walk(events, "client")) == [
        ("there", "client", "", "lo"),
        ("there", "client", "lo", ""),
        ("back", "client", "", "lo"),
        ("back", "client", "lo", ""),
    ]


def test_a_loop_ends() -> None:
    world = World()
    data = frames_of.udp(TO_SERVICE)
    for _ in range(walk.MOST_VISITS):
        world.carry(world.client, "eth0", world.node, "client", data)
        world.carry(world.node, "client", world.client, "eth0", data)
    visits = world.walk(UDP)
    assert len(visits) == walk.MOST_VISITS
    assert {visit.way for visit in visits} == {Way.THERE}
