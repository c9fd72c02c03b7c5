"""Impairments as users write them."""

import pytest

from netns import codec
from netns.errors import TopologyError
from netns.impairment import Impairment
from netns.topology import Host, Interface, Link, Topology


def test_quantities_are_read_with_their_units() -> None:
    read = Impairment.parse(
        {"delay": "10ms", "jitter": "500us", "loss": "0.1%", "rate": "1.5mbit", "limit": 50}, "x"
    )
    assert read == Impairment(
        delay_s=0.01, jitter_s=0.0005, loss=0.001, rate_bps=1_500_000, limit=50
    )
    assert Impairment.parse({"delay": "1s", "reorder": "25%"}, "x").netem() == {
        "delay": 1_000_000, "prob_reorder": 25.0, "limit": 1000,
    }  # fmt: skip
    assert Impairment.parse({"loss": 0, "corrupt": "100%"}, "x").netem() == {
        "prob_corrupt": 100.0, "limit": 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"speed": "1mbit"}, "speed: no such impairment"),
        ({"delay": "10"}, "delay: '10' is no quantity"),
        ({"delay": "10 minutes"}, "delay: '10 minutes' is no quantity"),
        ({"delay": "-1ms"}, "delay: '-1ms' is no quantity"),
        ({"delay": None}, "delay: None is no quantity"),
        ({"delay": True}, "delay: True is no quantity"),
        ({"delay": "61s"}, "delay: 61 s is out of range"),
        ({"loss": "101%"}, "loss: 101% is no part"),
        ({"jitter": "2ms", "delay": "1ms"}, "jitter: is more than the delay"),
        ({"reorder": "1%"}, "reorder: needs a delay"),
        ({"rate": "1bit"}, "rate: 1 bit/s is out of range"),
        ({"rate": "40gbit"}, "rate: 40000000000 bit/s is out of range"),
        ({"limit": "0"}, "limit: 0 packets"),
    ],
)
def test_what_cannot_be_is_told_with_field_and_remedy(texts: dict[str, object], told: str) -> None:
    with pytest.raises(TopologyError, match="links") as caught:
        Impairment.parse(texts, "links")
    assert told in str(caught.value)
    assert caught.value.remedy


def test_a_topology_with_impairments_survives_its_encoding() -> None:
    ends = [
        Interface(host=name, name="eth0", impairment=impairment)
        for name, impairment in (("a", Impairment(delay_s=0.0125, loss=0.5)), ("b", None))
    ]
    hosts = (Host(name="a"), Host(name="b"))
    topology = Topology(hosts=hosts, links=(Link(a=ends[0], b=ends[1]),))
    assert codec.decode(codec.encode(topology)) == topology


def test_a_topology_with_an_impossible_impairment_is_refused() -> None:
    ends = [
        Interface(host=name, name="eth0", impairment=Impairment(loss=2.0)) for name in ("a", "b")
    ]
    topology = Topology(
        hosts=(Host(name="a"), Host(name="b")), links=(Link(a=ends[0], b=ends[1]),)
    )
    with pytest.raises(TopologyError, match="loss"):
        topology.validate()
