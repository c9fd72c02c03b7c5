"""What the daemon makes of what it hears of its node and its cluster, and of its settings."""

from typing import Any

import pytest
from watched_agent import Watched, all_listed, settings

from kproxy.api.config import DetectLocal
from kproxy.api.core import ZONE_LABEL, Node, NodeSpec
from kproxy.api.discovery import EndpointSlice
from kproxy.api.meta import ObjectMeta
from kproxy.api.networking import ServiceCIDR, ServiceCIDRSpec
from kproxy.backends.base import SyncResult
from kproxy.desired.model import Family
from kproxy.errors import ApiError, UsageError
from kproxy.kernel import inet


def test_nothing_is_due_before_all_kinds_were_listed() -> None:
    watched = Watched()
    for _ in range(2):
        watched.informers.note_listed()
        assert not watched.rounds._ready
    watched.informers.note_listed()
    assert watched.rounds._ready
    assert watched.rounds.pending_since is not None


def test_what_was_listed_is_handed_on_whole_before_a_sync_is_asked_for() -> None:
    watched = Watched()
    watched.informers._listed = True
    pending = []

    def note(changes: Any) -> None:
        pending.append((len(changes), watched.rounds.pending_since))

    watched.stub.on_slices = note
    slices = [
        EndpointSlice(metadata=ObjectMeta(name=name, resource_version=name))
        for name in ("7", "12")
    ]
    watched.informers.note_slices([(None, one) for one in slices])
    assert pending == [(2, None)]
    assert watched.rounds.pending_since is not None
    assert watched.informers.versions() == {"endpointslices": "12"}


def node(**fields: Any) -> Node:
    labels = fields.pop("labels", None)
    return Node(metadata=ObjectMeta(name="n", labels=labels), **fields)


def test_the_zone_comes_from_the_node() -> None:
    watched = Watched(SyncResult(writes=0))
    here = node(labels={ZONE_LABEL: "zone-a"})
    watched.informers.note_node([(None, here)])
    assert watched.stub.zones == ["zone-a"]
    all_listed(watched)
    watched.rounds.once()
    watched.informers.note_node([(here, here)])
    assert watched.rounds.pending_since is None, "a heartbeat is no reason to sync"
    moved = node(labels={ZONE_LABEL: "zone-b"})
    watched.informers.note_node([(here, moved)])
    assert watched.rounds.pending_since is not None
    assert watched.stub.zones == ["zone-a", "zone-b"]
    watched.informers.note_node([(moved, None)])
    assert watched.agent._health.healthz(0, 0).code == 503
    assert watched.stub.zones == ["zone-a", "zone-b"], "who has no node keeps its rules"


def test_the_first_sync_waits_for_the_networks_of_pods_where_the_node_tells_them() -> None:
    watched = Watched(SyncResult(writes=0), detect_local_mode="NodeCIDR")
    watched.informers.note_node([(None, node())])
    all_listed(watched)
    assert not watched.rounds._ready
    (waiting,) = watched.events("waiting before the first sync")
    assert waiting["missing"] == "spec.podCIDRs of Node n"
    given = node(spec=NodeSpec(pod_cidrs=["10.1.2.0/24", "fd00:1::/64"]))
    watched.informers.note_node([(node(), given)])
    assert watched.rounds._ready
    expected = {Family.IPV4: ("10.1.2.0/24",), Family.IPV6: ("fd00:1::/64",)}
    assert watched.stub.cluster_cidrs == [expected]


def test_a_server_without_service_ranges_does_not_delay_the_first_sync() -> None:
    watched = Watched(mode="nftables")
    for _ in range(3):
        watched.informers.note_listed()
    assert not watched.rounds._ready, "ranges are still to come"
    ranges = watched.informers._all[-1]
    for _ in range(2):
        ranges._on_problem(ApiError(404, "NotFound", "no such kind"))
    assert watched.rounds._ready
    assert watched.events("API problem") == []


def test_service_ranges_are_handed_on_by_family() -> None:
    watched = Watched(mode="nftables")
    one = ServiceCIDR(
        metadata=ObjectMeta(name="kubernetes"),
        spec=ServiceCIDRSpec(cidrs=["10.96.0.0/16", "fd00:96::/112", "nonsense"]),
    )
    more = ServiceCIDR(
        metadata=ObjectMeta(name="more"), spec=ServiceCIDRSpec(cidrs=["10.95.0.0/16"])
    )
    watched.informers.note_service_cidrs([(None, one), (None, more)])
    watched.informers.note_service_cidrs([(one, None)])
    six = ("fd00:96::/112",)
    assert watched.stub.service_cidrs == [
        {Family.IPV4: ("10.95.0.0/16", "10.96.0.0/16"), Family.IPV6: six},
        {Family.IPV4: ("10.95.0.0/16",), Family.IPV6: ()},
    ]


def test_new_addresses_of_the_node_ask_for_a_sync() -> None:
    watched = Watched(SyncResult(writes=0))
    all_listed(watched)
    watched.rounds.read_kernel()
    watched.rounds.once()
    watched.agent._node.look()
    assert watched.rounds.pending_since is None, "nothing has changed"
    watched.agent._node._read = lambda device: {inet.Family.IPV4: ("192.0.2.9", "192.0.2.1")}
    watched.agent._node.look()
    assert watched.rounds.pending_since is not None
    assert watched.stub.node_ports[-1][Family.IPV4].addresses == ("192.0.2.1", "192.0.2.9")


def test_settings_follow_kube_proxys_configuration() -> None:
    made = settings(
        mode="ipvs", detect_local=DetectLocal(cluster_cidrs=["10.0.0.0/8", "fd00::/48"])
    )
    assert [str(one.cluster_cidrs[0]) for one in made.families] == ["10.0.0.0/8", "fd00::/48"]
    assert (made.sync_period, made.min_sync_period, made.healthz) == (30, 0, ("0.0.0.0", 10256))
    assert ("net/netfilter/nf_conntrack_tcp_timeout_established", 86400) in made.sysctls
    assert settings(detect_local_mode="NodeCIDR").families[0].cluster_cidrs == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "userspace"},
        {"healthz_bind_address": "nowhere"},
        {"detect_local": DetectLocal(cluster_cidrs=["10.0.0.0/8", "11.0.0.0/8"])},
    ],
)
def test_impossible_settings_are_the_users_mistake(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        settings(**fields)
