"""The file that describes a lab's cluster, and the hosts that follow from it."""

from ipaddress import IPv4Network, ip_address

import pytest

from kproxy.errors import InvalidObject
from kproxy.lab import clusterfile, plan, site
from netns.impairment import Impairment

WHOLE = """
name: demo
mode: nftables
families: [IPv4, IPv6]
nodes:
- name: alpha
  labels: {disk: ssd}
  taints: [{key: dedicated, value: db, effect: NoSchedule}]
  zone: east
- {}
controlPlane: {replicas: 3, store: etcd, etcdMembers: 5, security: none}
outside: 2
dns: false
profile: lab
links: {default: {delay: 1ms}, alpha: {loss: 1%}}
images: {nginx: {command: [kproxy-web]}}
proxy: {ipvs: {scheduler: sh}}
manifests: [shop.yaml]
"""


def made(text: str) -> site.Site:
    found = site.Site(clusterfile.parse(text, "lab.yaml"))
    found.check("lab.yaml")
    return found


def test_an_empty_file_is_a_cluster_that_can_be_built() -> None:
    found = made("")
    found.topology().validate()
    assert [node.name for node in found.nodes] == ["node1", "node2"]
    assert found.control == ("control1",)
    assert found.etcd == ()
    assert found.api_url == "https://192.168.49.1:6443"
    assert str(found.lan_address("node2")) == "192.168.50.12"


def test_a_whole_file_is_understood() -> None:
    found = made(WHOLE)
    topology = found.topology()
    topology.validate()
    names = {host.name for host in topology.hosts}
    assert names == {
        "edge", "admin", "alpha", "node2", "client-alpha", "client-node2", "control1", "control2",
        "control3", "etcd1", "etcd2", "etcd3", "etcd4", "etcd5", "outside1", "outside2",
    }  # fmt: skip
    assert found.node("alpha").addresses == tuple(map(ip_address, ("192.168.50.11", "fd00:50::b")))
    assert [str(one) for one in found.node("node2").pod_ranges] == [
        "10.244.2.0/24", "fd00:244:0:2::/64",
    ]  # fmt: skip
    assert found.node("alpha").file.zone == "east"
    assert found.api_url.startswith("http://")
    ends = {str(end): end.impairment for end in topology.interfaces()}
    assert ends["alpha:eth0"] == Impairment(loss=0.01)
    assert ends["node2:eth0"] == Impairment(delay_s=0.001)


def test_the_edge_has_a_way_to_the_api_before_any_rule_translates_it() -> None:
    hosts = {host.name: host for host in made("").topology().hosts}
    ways = {route.to: str(route.via) for route in hosts["edge"].routes}
    assert ways[IPv4Network(site.API_ADDRESS)] == "192.168.50.201"


def test_every_address_is_anothers() -> None:
    topology = made("{nodes: 50, families: [IPv4, IPv6], outside: 8}").topology()
    topology.validate()
    addresses = [
        address.ip
        for end in topology.interfaces()
        for address in end.addresses
        if address.ip not in (plan.GATEWAY, plan.GATEWAY6)
    ]
    assert len(set(addresses)) == len(addresses) > 200


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("nodes: 0", "nodes"),
        ("nodes: 51", "nodes"),
        ("nodes: many", "nodes"),
        ("nodes: [{name: a}, {name: a}]", "nodes[1].name"),
        ("nodes: [{name: A}]", "nodes[0].name"),
        ("nodes: [{name: edge}]", "nodes[0].name"),
        ("nodes: [{name: etcd1}]", "nodes[0].name"),
        ("nodes: [{name: a, colour: red}]", "nodes[0]"),
        ("mode: userspace", "mode"),
        ("balancer: {mode: userspace}", "balancer.mode"),
        ("families: [IPv5]", "families"),
        ("families: []", "families"),
        ("families: [IPv4, IPv4]", "families"),
        ("controlPlane: {replicas: 8}", "controlPlane.replicas"),
        ("controlPlane: {store: disk}", "controlPlane.store"),
        ("controlPlane: {etcdMembers: 4}", "controlPlane.etcdMembers"),
        ("profile: fast", "profile"),
        ("name: Demo!", "name"),
        ("links: {node3: {loss: 1%}}", "links.node3"),
        ("links: {node1: {loss: 101%}}", "links.node1.loss"),
        ("links: {node1: {speed: 1}}", "links.node1.speed"),
        ("outside: 9", "outside"),
        ("images: {nginx: {}}", "images"),
        ("colour: red", ""),
        ("- a\n- b", ""),
    ],
)
def test_each_mistake_is_told_with_its_field(text: str, field: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        made(text)
    assert caught.value.field.startswith(field)
    assert caught.value.remedy
    assert "lab.yaml" in str(caught.value)
