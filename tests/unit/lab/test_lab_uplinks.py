"""Which hosts are on network cards, and what goes over their cables."""

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from kproxy import errors
from kproxy.lab import clusterfile, plan, uplinks
from kproxy.lab.site import Site
from netns.topology import Interface, Topology
from netns.uplink import Attachment, Uplink


def cards(**hosts: str) -> dict[str, Uplink]:
    return {host: Uplink(nic=nic) for host, nic in hosts.items()}


def ends(topology: Topology) -> dict[str, Interface]:
    return {str(each): each for each in topology.interfaces() if each.uplink}


def ways(topology: Topology, host: str) -> dict[str, str]:
    (found,) = [each for each in topology.hosts if each.name == host]
    return {str(route.to): str(route.via) for route in found.routes}


def test_a_node_and_its_traffic_host_have_one_cable() -> None:
    made = plan.topology(plan.Plan(uplinks=cards(node1="eth1", client="eth2")))
    made.validate()
    virtual = plan.topology(plan.Plan())
    assert {name: str(each.uplink) for name, each in ends(made).items()} == {
        "node1:client1": "eth1",
        "client1:eth0": "eth2",
    }
    assert len(made.segments) == len(virtual.segments)
    assert made.hosts == virtual.hosts
    for name, each in ends(made).items():
        before = next(one for one in virtual.interfaces() if str(one) == name)
        assert (each.addresses, each.routes) == (before.addresses, before.routes)


def test_nodes_reach_each_other_over_the_wire() -> None:
    made = plan.topology(plan.Plan(nodes=3, uplinks=cards(node1="eth1", node2="eth2")))
    made.validate()
    found = ends(made)
    assert found["node1:uplink"].addresses == (ip_interface("192.168.60.11/24"),)
    assert ways(made, "node1")["10.244.2.0/24"] == "192.168.60.12"
    assert ways(made, "node1")["192.168.50.12/32"] == "192.168.60.12"
    assert ways(made, "node1")["10.244.3.0/24"] == "192.168.50.13"
    assert ways(made, "node3")["10.244.2.0/24"] == "192.168.50.12"


def test_a_lab_s_file_has_cards_in_both_families() -> None:
    text = "families: [IPv4, IPv6]\nuplinks: {node1: eth1, outside1: {nic: eth2, as: vf}}"
    made = Site(clusterfile.parse(text, "lab.yaml")).topology()
    made.validate()
    found = ends(made)
    assert found["outside1:uplink"].uplink == Uplink(nic="eth2", kind=Attachment.VF)
    assert found["outside1:uplink"].addresses == (
        ip_interface("192.168.60.111/24"),
        ip_interface("fd00:60::6f/64"),
    )
    assert ways(made, "outside1")["192.168.50.11/32"] == "192.168.60.11"
    assert ways(made, "outside1")["fd00:244:0:1::/64"] == "fd00:60::b"
    assert ways(made, "node1")["198.51.100.11/32"] == "192.168.60.111"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{node9: eth1}", "uplinks.node9: there is no such host"),
        ("{client: eth1}", "client-node1 is behind node1, which has no card"),
        ("{node1: eth1, client: eth2, client-node1: eth3}", "a host is named twice"),
        ("{node1: {nic: eth1, as: bond}}", "uplinks.node1.as: 'bond' (use nic, macvlan, vf)"),
        ("{node1: {nic: eth1, mod: x}}", "uplinks.node1.mod: no such field"),
        ("{node1: {nic: eth1, mode: private}}", "uplinks.node1.mode: 'private' (only as: macvlan"),
        ("{node1: lo}", "'lo' is no card"),
        ("{node1: {as: vf}}", "names no card"),
        ("[eth1]", "uplinks: "),
    ],
)
def test_mistakes_in_the_file_are_named(text: str, said: str) -> None:
    with pytest.raises(errors.InvalidObject) as refused:
        Site(clusterfile.parse(f"uplinks: {text}", "lab.yaml")).check("lab.yaml")
    assert said in str(refused.value)
    assert str(refused.value).startswith("lab.yaml: ")


def test_the_option_is_a_list_or_a_file(tmp_path: Path) -> None:
    assert uplinks.option("node1=eth1,client=eth2:macvlan") == {
        "node1": Uplink(nic="eth1"),
        "client": Uplink(nic="eth2", kind=Attachment.MACVLAN),
    }
    path = tmp_path / "lab.yaml"
    for text in ("uplinks: {node1: eth1}", "{node1: eth1}"):
        path.write_text(text)
        assert uplinks.option(str(path)) == {"node1": Uplink(nic="eth1")}
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for wrong, said in (
        (str(tmp_path / "binary"), "it is not UTF-8 text"),
        ("node1=eth1,node1=eth2", "node1 is named twice"),
        ("node1=eth1:wifi", "host.node1.as: 'wifi'"),
        (str(tmp_path / "none"), "No such file"),
    ):
        with pytest.raises(errors.KproxyError, match=said):
            uplinks.option(wrong)


def test_what_is_reached_over_a_cable_is_one_destination_each() -> None:
    found = uplinks.hosts_and_ranges([ip_address("192.0.2.1"), None], [ip_network("10.0.0.0/8")])
    assert found == (ip_network("192.0.2.1/32"), ip_network("10.0.0.0/8"))
