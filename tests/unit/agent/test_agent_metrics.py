"""What rounds do to the metrics: names, labels and buckets of kube-proxy, drift, latencies."""

import errno
import time
from typing import Any

import pytest
from exposition_parser import Parsed, parse

from kproxy.agent.metrics import Metrics, timestamp
from kproxy.agent.rounds import Round
from kproxy.backends.base import RuleCount, Swept, SyncResult
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.errors import KernelError
from kproxy.proxier import SyncReport

NOTHING = State(family=Family.IPV4, services={})
FAILURE = KernelError("add", errno.EIO, "no")
FOUR = (("ip_family", "IPv4"),)
MINE = (("ip_family", "IPv4"), ("mode", "ipvs"))


class Informers:
    """Stands in for those of the daemon."""

    def __init__(self) -> None:
        self.triggers: list[tuple[str, str]] = []

    def take_triggers(self) -> list[tuple[str, str]]:
        taken, self.triggers = self.triggers, []
        return taken

    def heard(self) -> dict[str, tuple[int, int]]:
        return {"endpointslices": (7, 2), "services": (3, 0)}


class Queue:
    asked_wall = 1_700_000_000.5


class Measured:
    """Metrics, and what was heard."""

    def __init__(self, mode: str = "ipvs") -> None:
        self.informers = Informers()
        heard: Any = self.informers
        self.metrics = Metrics(mode, heard, Queue())

    def observe(
        self,
        *,
        state: State = NOTHING,
        full: bool = False,
        asked_at: float | None = None,
        services: int = 0,
        endpoints: int = 0,
        **result: Any,
    ) -> int:
        report = SyncReport(
            state=state,
            result=SyncResult(**{"writes": 0, **result}),
            services=services,
            endpoints=endpoints,
            duration_ns=3_000_000,
        )
        done = Round(reports=[report], disabled=[], full=full, asked_at=asked_at, ended_at=100.0)
        return self.metrics.observe(done)

    def found(self) -> dict[str, Parsed]:
        return parse(self.metrics.registry.text())

    def value(self, name: str, labels: tuple[tuple[str, str], ...] = FOUR) -> float:
        family = next(one for known, one in self.found().items() if name.startswith(known))
        return family.samples[name, labels]


def bounds(family: Parsed) -> list[str]:
    return [dict(labels)["le"] for name, labels in family.samples if name.endswith("_bucket")]


def test_names_and_buckets_are_kube_proxys() -> None:
    measured = Measured("iptables")
    measured.observe(full=True)
    measured.informers.triggers = [("IPv4", "2026-01-01T00:00:00Z")]
    measured.observe(rules=(RuleCount("nat", 7, 2),))
    found = measured.found()
    prefix = "kubeproxy_sync_proxy_rules_"
    assert {
        f"{prefix}duration_seconds",
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        f"{prefix}last_timestamp_seconds",
        f"{prefix}last_queued_timestamp_seconds",
        "kubeproxy_network_programming_duration_seconds",
        f"{prefix}endpoint_changes_pending",
        f"{prefix}endpoint_changes_total",
        f"{prefix}service_changes_pending",
        f"{prefix}service_changes_total",
        f"{prefix}iptables_restore_failures_total",
        f"{prefix}iptables_partial_restore_failures_total",
        f"{prefix}iptables_total",
        f"{prefix}iptables_last",
        f"{prefix}no_local_endpoints_total",
    } <= found.keys()
    assert bounds(found[f"{prefix}duration_seconds"])[:3] == ["0.001", "0.002", "0.004"]
    assert bounds(found[f"{prefix}duration_seconds"])[-2:] == ["16.384", "+Inf"]
    programming = bounds(found["kubeproxy_network_programming_duration_seconds"])
    assert programming[:4] == ["0.25", "0.5", "1", "2"]
    assert programming[-8:] == ["120", "150", "180", "210", "240", "270", "300", "+Inf"]
    assert len(programming) == 2 + 59 + 12 + 7 + 1


def test_syncs_are_counted_as_full_or_partial() -> None:
    measured = Measured()
    measured.observe(full=True)
    measured.observe()
    measured.observe()
    for name, count in (("", 3), ("full_", 1), ("partial_", 2)):
        family = f"kubeproxy_sync_{name}proxy_rules_duration_seconds"
        assert measured.value(f"{family}_count") == count


def test_failures_are_counted_and_do_not_count_as_the_last_sync() -> None:
    measured = Measured("iptables")
    measured.observe(failures=(FAILURE,))
    found = measured.found()
    assert "kubeproxy_sync_proxy_rules_last_timestamp_seconds" not in found
    prefix = "kubeproxy_sync_proxy_rules_iptables_"
    assert measured.value(f"{prefix}restore_failures_total") == 1
    assert measured.value(f"{prefix}partial_restore_failures_total") == 1
    measured.observe(failures=(FAILURE,), full=True)
    assert measured.value(f"{prefix}restore_failures_total") == 2
    assert measured.value(f"{prefix}partial_restore_failures_total") == 1


def test_latency_is_from_the_change_of_endpoints_to_a_sync_that_succeeded() -> None:
    measured = Measured()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.5Z", time.gmtime(time.time() - 20))
    measured.informers.triggers = [("IPv4", stamp), ("IPv6", stamp), ("IPv4", "yesterday")]
    measured.observe(failures=(FAILURE,))
    assert measured.informers.triggers, "kept for a sync that succeeds"
    measured.observe()
    for name in ("kubeproxy", "kproxy"):
        family = f"{name}_network_programming_duration_seconds"
        assert measured.value(f"{family}_count") == 1
        assert 10 < measured.value(f"{family}_sum") < 100


def test_latency_is_exposed_before_the_first_change_so_that_its_increase_is_seen() -> None:
    measured = Measured()
    measured.observe()
    for name in ("kubeproxy", "kproxy"):
        assert measured.value(f"{name}_network_programming_duration_seconds_count") == 0


def test_fine_latency_is_from_hearing_of_a_change() -> None:
    measured = Measured()
    measured.observe(asked_at=99.995)
    measured.observe()
    family = measured.found()["kproxy_change_duration_seconds"]
    assert family.samples["kproxy_change_duration_seconds_count", ()] == 1
    at_most = {
        float(dict(labels)["le"].replace("Inf", "inf")): value
        for (name, labels), value in family.samples.items()
        if name.endswith("_bucket")
    }
    assert (at_most[0.002], at_most[0.01]) == (0, 1)


def test_drift_is_what_a_full_sync_writes_though_nothing_has_changed() -> None:
    measured = Measured()
    assert measured.observe(writes=5, full=True) == 0, "the first sync"
    assert measured.observe(writes=1) == 0, "no full one"
    assert measured.observe(full=True) == 0, "nothing written"
    assert measured.observe(writes=2, full=True) == 2
    assert measured.observe(writes=1, failures=(FAILURE,), full=True) == 2
    assert measured.value("kproxy_drift_found_total", MINE) == 4
    assert measured.value("kproxy_drift_repaired_total", MINE) == 3
    other = State(family=Family.IPV4, services={})
    assert measured.observe(state=other, writes=2, full=True) == 0, "an object has changed"


def test_flows_that_are_forgotten_are_counted_and_are_no_drift() -> None:
    measured = Measured()
    measured.observe()
    assert measured.observe(writes=3, swept=Swept(3, 2_000_000), full=True) == 0
    prefix = "kubeproxy_conntrack_reconciler_"
    assert measured.value(f"{prefix}deleted_entries_total") == 3
    assert measured.value(f"{prefix}sync_duration_seconds_count") == 1
    assert measured.value(f"{prefix}sync_duration_seconds_sum") == pytest.approx(0.002)


def test_what_the_first_sync_did_not_have_to_write_was_adopted() -> None:
    measured = Measured()
    measured.observe(writes=3, services=2, endpoints=20)
    assert measured.value("kproxy_adopted_objects", MINE) == 19
    measured.observe(services=2, endpoints=20)
    assert measured.value("kproxy_adopted_objects", MINE) == 19


def test_the_end_of_endpoints_that_drained_is_no_drift() -> None:
    measured = Measured()
    measured.observe(writes=1, again_in=60.0)
    assert measured.observe(writes=1, full=True) == 0
    assert measured.observe(writes=1, full=True) == 1


def test_services_without_endpoints_here_are_counted_by_policy() -> None:
    def one(name: str, *known: Endpoint, **fields: Any) -> Any:
        named = ServicePortName("demo", name, "", Protocol.TCP)
        service = ServicePort(
            name=named, cluster_ip=Address("10.96.0.1"), port=80, node_port=30080, **fields
        )
        return named, ServiceState(service=service, local=known, anywhere=True)

    here = Endpoint(address=Address("10.128.0.1"), port=80, local=True)
    services = dict(
        [
            one("a", external_local=True),
            one("b", external_local=True, internal_local=True),
            one("c", here, internal_local=True),
            one("d"),
        ]
    )
    measured = Measured()
    measured.observe(state=State(family=Family.IPV4, services=services))
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    assert measured.value(name, (*FOUR, ("traffic_policy", "external"))) == 2
    assert measured.value(name, (*FOUR, ("traffic_policy", "internal"))) == 1


def test_changes_are_told_as_heard() -> None:
    measured = Measured()
    prefix = "kubeproxy_sync_proxy_rules_"
    assert measured.value(f"{prefix}endpoint_changes_total", ()) == 7
    assert measured.value(f"{prefix}endpoint_changes_pending", ()) == 2
    assert measured.value(f"{prefix}last_queued_timestamp_seconds") == Queue.asked_wall


@pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
def test_every_mode_has_counters_from_the_start(mode: str) -> None:
    found = parse(Measured(mode).metrics.registry.text())
    labels = (("ip_family", "IPv6"), ("mode", mode))
    assert found["kproxy_drift_repaired_total"].samples["kproxy_drift_repaired_total", labels] == 0


def test_rules_are_told_by_table() -> None:
    measured = Measured("iptables")
    measured.observe(rules=(RuleCount("filter", 12, 12), RuleCount("nat", 70, 70)))
    measured.observe(rules=(RuleCount("filter", 12, 0), RuleCount("nat", 75, 7)))
    prefix = "kubeproxy_sync_proxy_rules_iptables_"
    nat = (*FOUR, ("table", "nat"))
    assert (measured.value(f"{prefix}total", nat), measured.value(f"{prefix}last", nat)) == (75, 7)
    assert measured.value(f"{prefix}last", (*FOUR, ("table", "filter"))) == 0


def test_chains_that_cannot_be_deleted_yet_are_counted() -> None:
    measured = Measured("nftables")
    name = "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total"
    assert measured.value(name) == 0
    measured.observe(uncleaned=True)
    measured.observe()
    assert measured.value(name) == 1


@pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
def test_each_mode_tells_only_what_applies(mode: str) -> None:
    measured = Measured(mode)
    measured.observe(rules=(RuleCount("nat", 7, 2),), uncleaned=True)
    prefix = "kubeproxy_sync_proxy_rules_"
    names = {name.removeprefix(prefix) for name in measured.found() if name.startswith(prefix)}
    assert {name for name in names if name.startswith(("iptables", "nftables"))} == {
        "ipvs": {"iptables_restore_failures_total"},
        "iptables": {
            "iptables_restore_failures_total",
            "iptables_partial_restore_failures_total",
            "iptables_total",
            "iptables_last",
        },
        "nftables": {"nftables_sync_failures_total", "nftables_cleanup_failures_total"},
    }[mode]


def test_timestamps() -> None:
    assert timestamp("1970-01-01T00:00:01Z") == 1
    assert timestamp("1970-01-01T01:00:00.25+01:00") == 0.25
    assert timestamp("1970-01-01T00:00:00.123456789Z") == pytest.approx(0.123456)
    assert timestamp("") is None
