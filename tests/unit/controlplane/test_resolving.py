"""Whom a pod asks for names: dnsPolicy and dnsConfig."""

from typing import Any

import msgspec
import pytest

from kproxy.api.pods import Pod
from kproxy.controlplane import resolving
from kproxy.controlplane.resolving import Resolver, for_pod

HOST = Resolver(nameservers=("192.0.2.53",), searches=("example.org",), options=("timeout:1",))
SERVERS = ["10.96.0.10", "fd00:96::a"]
CLUSTER = """\
search shop.svc.cluster.local svc.cluster.local cluster.local example.org
nameserver 10.96.0.10
nameserver fd00:96::a
options ndots:5
"""


def pod(**spec: Any) -> Pod:
    meta = {"name": "p", "namespace": "shop"}
    return msgspec.convert({"metadata": meta, "spec": spec}, Pod)


def test_pods_ask_the_cluster_first() -> None:
    assert for_pod(pod(), HOST, SERVERS).text() == CLUSTER
    with_host = pod(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")
    assert for_pod(with_host, HOST, SERVERS).text() == CLUSTER


@pytest.mark.parametrize("spec", [{"dnsPolicy": "Default"}, {"hostNetwork": True}])
def test_others_ask_as_their_node_does(spec: dict[str, Any]) -> None:
    assert for_pod(pod(**spec), HOST, SERVERS) == HOST


def test_without_a_name_server_all_do() -> None:
    assert for_pod(pod(), HOST, []) == HOST


def test_what_a_pod_asks_for_beside() -> None:
    config = {
        "nameservers": ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"],
        "searches": ["example.net"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    found = for_pod(pod(dnsPolicy="None", dnsConfig=config), HOST, SERVERS)
    assert found.nameservers == ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert found.searches == ("example.net",)
    assert found.options == ("ndots:2", "edns0")
    both = for_pod(pod(dnsConfig=config), HOST, SERVERS)
    assert both.nameservers == (*SERVERS, "192.0.2.1")
    assert both.searches[-1] == "example.net"
    assert both.options == ("ndots:2", "edns0")


def test_no_more_domains_than_resolvers_take() -> None:
    config = {"searches": [f"{'a' * 60}.d{number}.example.org" for number in range(40)]}
    found = for_pod(pod(dnsPolicy="None", dnsConfig=config), HOST, SERVERS)
    assert len(found.searches) < 32
    assert len(" ".join(found.searches)) <= 2048


def test_a_file_is_read_as_it_is_written() -> None:
    assert resolving.parse(HOST.text()) == HOST
    assert resolving.parse("# x\n\nsortlist 1\nnameserver\ndomain a.b\n").searches == ("a.b",)
