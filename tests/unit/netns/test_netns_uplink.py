"""Network cards in topologies: what can be, what is kept, what is said of their settings."""

import dataclasses
from pathlib import Path

import pytest

from netns import codec, journal, nicreport
from netns.errors import TopologyError
from netns.nic import Taken
from netns.nicreport import Interrupt, Inventory, NicReport
from netns.nicstate import State
from netns.topology import Host, Interface, Link, Segment, Topology
from netns.uplink import Attachment, Uplink

INVENTORY = Inventory(
    driver="e1000e", version="6.1", firmware="1.8", bus="0000:00:04.0", interrupts=(24, 25)
)


def cable(first: Uplink | None, second: Uplink | None) -> Topology:
    link = Link(
        a=Interface(host="a", name="w", uplink=first),
        b=Interface(host="b", name="w", uplink=second),
    )
    return Topology(hosts=(Host(name="a"), Host(name="b")), links=(link,))


def test_a_cable_has_cards_at_both_ends_or_at_none() -> None:
    cable(Uplink(nic="eth1"), Uplink(nic="eth2")).validate()
    with pytest.raises(TopologyError, match="interface b:w: uplink: is missing"):
        cable(Uplink(nic="eth1"), None).validate()


def test_a_card_is_shared_by_macvlans_only() -> None:
    def on(kind: Attachment, mode: str = "bridge") -> Uplink:
        return Uplink(nic="eth1", kind=kind, mode=mode)

    macvlan, whole = on(Attachment.MACVLAN), on(Attachment.WHOLE)
    cable(macvlan, macvlan).validate()
    cable(on(Attachment.VF), on(Attachment.VF)).validate()
    for other in (whole, macvlan, on(Attachment.VF)):
        with pytest.raises(TopologyError, match="eth1 is taken by another interface"):
            cable(whole, other).validate()
    with pytest.raises(TopologyError, match="eth1 is taken"):
        cable(macvlan, on(Attachment.MACVLAN, "passthru")).validate()


def test_a_switch_of_cards_is_no_namespace() -> None:
    topology = cable(None, None)
    joined = (Interface(host="a", name="up", uplink=Uplink(nic="eth1")),)
    book = journal.Ledger(
        name="t",
        topology=dataclasses.replace(topology, segments=(Segment(name="s", interfaces=joined),)),
    )
    assert book.namespaces == ["t-a", "t-b"]


def taken(state: State | None) -> Taken:
    return Taken(
        host="a",
        interface="w",
        namespace="t-a",
        nic="eth1",
        kind=Attachment.WHOLE if state else Attachment.MACVLAN,
        home=(4, 4026531840),
        state=state,
        inventory=INVENTORY,
    )


def test_the_journal_keeps_a_card_until_it_is_returned(tmp_path: Path) -> None:
    state = State(
        name="eth1",
        index=3,
        mac="02:00:00:00:00:01",
        mtu=1500,
        queue_length=1000,
        flags=1,
        addresses=["02"],
        routes=["03"],
        settings={"ipv4/conf/rp_filter": "2"},
        features={"rx-gro": True},
        groups={"RINGS": {"rx": 256}},
    )
    topology = cable(Uplink(nic="eth1"), Uplink(nic="eth2", kind=Attachment.VF))
    for card in (taken(state), taken(None)):
        path = tmp_path / str(card.kind)
        path.mkdir()
        book = journal.Journal(path)
        noted = [dataclasses.asdict(card)]
        book.append("add", topology=codec.encode(topology), cards=noted)
        assert book.ledger().cards == (card,)
        assert book.ledger().topology == topology
        book.append("returned", host="a", interface="w")
        assert book.ledger().cards == ()
        book.close()


def test_the_tag_of_a_card_fits_whatever_it_is_called() -> None:
    short = taken(None)
    assert short.tag == "lab.eth1.t-a"
    long = dataclasses.replace(short, namespace="t" * 190)
    assert len(long.tag) <= 127
    assert long.tag.startswith("lab.eth1.")
    assert len({short.temporary, long.temporary}) == 2
    assert len(long.temporary) <= 15


QUIET = NicReport(
    host="a",
    interface="w",
    nic="eth1",
    attachment="nic",
    driver="e1000e",
    version="",
    firmware="",
    bus="",
    mac="",
    mtu=1500,
    speed_mbps=1000,
    duplex="full",
    offloads=("tx-scatter-gather",),
    rings={},
    queues={},
    coalescing={"rx-usecs": 0, "adaptive-rx": 0},
    pause={"rx": 0, "tx": 0},
    energy={"enabled": 0},
    timestamps={},
    interrupts=(),
)


def interrupt(number: int) -> Interrupt:
    return Interrupt(number=number, name="eth1", cpus="0-3", effective="1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offloads": ("rx-gro",)}, "ethtool -K eth1 gro off"),
        ({"offloads": ("rx-lro",)}, "ethtool -K eth1 lro off"),
        ({"coalescing": {"adaptive-tx": 1}}, "adaptive-rx off"),
        ({"coalescing": {"rx-usecs": 50}}, "up to 50 µs"),
        ({"energy": {"enabled": 1}}, "eee off"),
        ({"duplex": "half"}, "half duplex"),
        ({"pause": {"rx": 1}}, "pause frames"),
        ({"interrupts": (interrupt(24), interrupt(25))}, "to one CPU"),
    ],
)
def test_what_spoils_figures_is_said_with_the_remedy(change: dict[str, object], said: str) -> None:
    assert nicreport.warnings(QUIET) == []
    (warning,) = nicreport.warnings(dataclasses.replace(QUIET, **change))
    assert said in warning
