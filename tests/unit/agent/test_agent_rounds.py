"""What the daemon does after each sync, without threads: its rounds, its events, its patience."""

import errno
import gc
import io
import json
import time
from typing import Any

import pytest

from kproxy.agent.daemon import Agent
from kproxy.agent.rounds import FULL_LATE_S, RETRY_MAX_S
from kproxy.agent.settings import Settings, from_config
from kproxy.api.config import DetectLocal, KubeProxyConfiguration, with_defaults
from kproxy.api.core import ZONE_LABEL, Node, NodeSpec
from kproxy.api.discovery import EndpointSlice
from kproxy.api.meta import ObjectMeta
from kproxy.api.networking import ServiceCIDR, ServiceCIDRSpec
from kproxy.backends.base import SyncResult
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from kproxy.desired.model import Family, State
from kproxy.errors import ApiError, InvalidObject, KernelError, Unsupported, UsageError
from kproxy.kernel import inet
from kproxy.logs import Log
from kproxy.proxier import SyncReport

FAILURE = KernelError("add", errno.EIO, "refused")


class Stub:
    """Stands in for the proxiers: says what the test wants."""

    on_slices: Any

    def __init__(self, *results: SyncResult) -> None:
        self.results = list(results)
        self.read = 0
        self.unsupported: str | None = None
        self.state = State(family=Family.IPV4, services={})
        self.zones: list[str] = []
        self.node_ports: list[Any] = []
        self.cluster_cidrs: list[Any] = []
        self.service_cidrs: list[Any] = []
        self.proxiers = [self]
        self.left_over = False
        self.backend = self

    def supported(self) -> str | None:
        return self.unsupported

    def reread(self) -> None:
        self.read += 1

    def sync(self) -> list[SyncReport]:
        result = self.results.pop(0)
        return [
            SyncReport(
                state=self.state, result=result, services=1, endpoints=2, duration_ns=1_500_000
            )
        ]

    def set_zone(self, zone: str) -> None:
        self.zones.append(zone)

    def set_node_ports(self, node_ports: Any) -> None:
        self.node_ports.append(node_ports)

    def set_cluster_cidrs(self, cidrs: Any) -> None:
        self.cluster_cidrs.append(cidrs)

    def set_service_cidrs(self, cidrs: Any) -> None:
        self.service_cidrs.append(cidrs)

    def find_left_over(self) -> bool:
        return self.left_over

    def take_problems(self) -> list[Any]:
        return []

    def take_disabled(self) -> list[str]:
        return []


def settings(**fields: Any) -> Settings:
    return from_config(with_defaults(KubeProxyConfiguration(hostname_override="n", **fields)))


class Watched:
    """An agent whose proxier is a stub, and what it logs."""

    def __init__(self, *results: SyncResult, **configured: Any) -> None:
        self.output = io.StringIO()
        rest = Rest(Access(server="http://127.0.0.1:1"))
        self.agent: Any = Agent(settings(**configured), rest, Log("proxy", "debug", self.output))
        self.stub = Stub(*results)
        self.rounds, self.informers = self.agent._rounds, self.agent._informers
        for part in (self.agent, self.rounds, self.informers, self.agent._node):
            part._proxier = self.stub
        self.agent._node._read = lambda device: {}
        # What follows the first round is not this test's: no server, no switches.
        self.agent._start_health_server = lambda: None
        self.agent._start_companions = lambda: None
        self.agent._node.follow = lambda: None
        self.agent._tune = lambda: None

    def events(self, msg: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.output.getvalue().splitlines())
        return [line for line in lines if line["msg"] == msg]


def test_the_first_sync_is_marked_and_only_the_first() -> None:
    watched = Watched(SyncResult(writes=3), SyncResult(writes=0))
    watched.rounds.once()
    watched.rounds.once()
    first, second = watched.events("synced")
    assert (first["first"], second["first"]) == (True, False)
    assert first["writes"] == 3
    assert {
        "backend",
        "family",
        "services",
        "endpoints",
        "duration_ms",
        "versions",
    } <= first.keys()


def test_a_failed_sync_is_not_told_as_synced_and_does_not_count_as_first() -> None:
    watched = Watched(SyncResult(writes=1, failures=(FAILURE,)), SyncResult(writes=1))
    watched.rounds.once()
    assert watched.events("synced") == []
    (failed,) = watched.events("sync failed")
    assert failed["failures"] == [str(FAILURE)]
    watched.rounds.once()
    assert watched.events("synced")[0]["first"] is True


def test_a_first_sync_that_fails_does_not_hold_up_health_checks_and_switches() -> None:
    watched = Watched(SyncResult(writes=0, failures=(FAILURE,)), SyncResult(writes=0))
    tuned = []
    watched.agent._tune = lambda: tuned.append(watched.agent._tried_once.is_set())
    gc.disable()
    try:
        watched.rounds.once()
        assert gc.isenabled()
    finally:
        gc.enable()
    watched.rounds.once()
    assert tuned == [True]


def test_what_an_earlier_run_left_in_another_family_asks_for_a_sync() -> None:
    watched = Watched(SyncResult(writes=0), SyncResult(writes=0))
    watched.stub.left_over = True
    watched.rounds.once()
    assert watched.rounds.pending_since is not None
    watched.rounds.once()
    assert watched.rounds.pending_since is None, "looked for once"


def test_what_keeps_failing_is_tried_less_and_less_often() -> None:
    failing = SyncResult(writes=0, failures=(FAILURE,))
    watched = Watched(*[failing] * 8, SyncResult(writes=0), failing)
    for _ in range(10):
        watched.rounds.once()
    waits = [event["again_in_s"] for event in watched.events("sync failed")]
    assert waits == [1, 2, 4, 8, 16, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S, 1]


def test_what_the_kernel_refuses_is_told_once_and_nothing_waits_for_it() -> None:
    refusing = SyncResult(writes=1, refused=(KernelError("add", errno.EINVAL, "invalid"),))
    watched = Watched(refusing, refusing, SyncResult(writes=0), refusing)
    watched.rounds.request()
    for _ in range(4):
        watched.rounds.once()
    assert len(watched.events("synced")) == 4
    assert watched.events("sync failed") == []
    told = watched.events("refused by the kernel")
    assert [event["failures"] for event in told] == [["add: invalid"]] * 2, "again when it is back"
    assert watched.rounds.pending_since is None
    assert watched.agent._health.livez(1e9, 1e9).code == 200


def test_a_service_that_contradicts_another_is_told_once() -> None:
    clash = InvalidObject("Service demo/b", "spec.clusterIP", "belongs to Service demo/a already")
    watched = Watched(*[SyncResult(writes=0, invalid=(clash,))] * 2, SyncResult(writes=0))
    for _ in range(3):
        watched.rounds.once()
    assert [event["error"] for event in watched.events("invalid object")] == [str(clash)]


def test_where_the_mode_is_impossible_trying_again_is_of_no_use() -> None:
    watched = Watched(SyncResult(writes=0, failures=(FAILURE,)))
    watched.stub.unsupported = "no IPVS here"
    with pytest.raises(Unsupported, match="no IPVS here"):
        watched.rounds.once()


def test_the_kernel_is_read_again_at_full_syncs_only() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    watched.rounds.once()
    assert watched.stub.read == 1
    watched.rounds._read_at -= 31
    watched.rounds.once()
    assert watched.stub.read == 2


def test_who_asks_for_a_full_sync_has_the_kernel_read_at_once_and_once() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    watched.rounds.request_full()
    assert watched.rounds.pending_since is not None
    watched.rounds.once()
    assert watched.stub.read == 2
    watched.rounds.request()
    watched.rounds.once()
    assert watched.stub.read == 2, "the next one is as usual"


def test_a_change_does_not_wait_for_the_kernel_to_be_read() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    assert watched.stub.read == 1
    assert watched.rounds.next_due > watched.rounds._read_at, "a full sync is due by itself"
    watched.rounds._read_at -= 30.5
    watched.rounds.request()
    watched.rounds.once()
    assert watched.stub.read == 1
    assert watched.rounds.next_due < time.monotonic(), "the full sync follows at once"
    watched.rounds.once()
    assert watched.stub.read == 2


def test_what_keeps_failing_is_not_tried_on_and_on_when_the_kernel_is_to_be_read() -> None:
    failing = SyncResult(writes=0, failures=(FAILURE,))
    watched = Watched(*[failing] * 2)
    watched.rounds.once()
    watched.rounds._read_at -= 30.5
    assert watched.rounds.next_due > time.monotonic(), "it would never wait again"
    watched.rounds._read_at -= FULL_LATE_S
    watched.rounds.once()
    assert watched.stub.read == 2, "though something is still to be done"
    assert watched.rounds.next_due > time.monotonic()


def test_changes_without_end_put_a_full_sync_off_for_a_moment_only() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 3)
    watched.rounds.once()
    watched.rounds._read_at -= 30.5
    watched.rounds.request()
    watched.rounds.once()
    assert watched.stub.read == 1
    watched.rounds.request()
    watched.rounds._read_at -= FULL_LATE_S
    watched.rounds.once()
    assert watched.stub.read == 2


def test_a_kernel_that_cannot_be_read_is_not_read_on_and_on() -> None:
    watched = Watched(*[SyncResult(writes=0)] * 2)

    def broken() -> None:
        raise FAILURE

    watched.stub.reread = broken  # type: ignore[method-assign]
    watched.rounds.once()
    assert watched.rounds.next_due > time.monotonic()
    assert len(watched.events("reading the kernel failed")) == 1


def test_endpoints_that_drain_are_looked_at_again() -> None:
    watched = Watched(SyncResult(writes=1, again_in=60), SyncResult(writes=0))
    watched.rounds.once()
    assert watched.rounds._again_at < float("inf")
    watched.rounds.once()
    assert watched.rounds._again_at == float("inf")


def test_what_is_wanted_first_comes_first() -> None:
    both = SyncResult(writes=1, again_in=60, flows_again_in=1)
    watched = Watched(both, SyncResult(writes=0, flows_again_in=0.0), SyncResult(writes=0))
    before = time.monotonic()
    watched.rounds.once()
    assert before + 1 <= watched.rounds.next_due < before + 30
    watched.rounds.once()
    assert watched.rounds.next_due <= time.monotonic(), "it is due already"
    watched.rounds.once()
    assert watched.rounds._again_at == float("inf")


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


def all_listed(watched: Watched) -> None:
    for _ in watched.informers._all:
        watched.informers.note_listed()


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
