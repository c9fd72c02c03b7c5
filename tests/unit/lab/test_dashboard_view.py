"""What the live page shows of what was found out."""

from collections.abc import Mapping
from typing import Any

import pytest

from kproxy.lab.clusterfile import Profile
from kproxy.lab.dashboard import counters, looking, prometheus, queries, view
from kproxy.lab.dashboard.counters import Carried
from kproxy.lab.dashboard.messages import Alert, Event, Tile
from kproxy.lab.whole.monitors import Watch
from kproxy.lab.whole.picture import (
    HostPicture,
    NodePicture,
    Picture,
    PodPicture,
    ProcessPicture,
    ServicePicture,
)

NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0
  eth0:123456789   4000    0    7    0     0          0         0   654321    3000    0    0    0
"""


def pod(name: str, phase: str = "Running", ready: int = 1, node: str = "node1") -> PodPicture:
    return PodPicture(
        namespace="shop",
        name=name,
        node=node,
        phase=phase,
        ready=ready,
        containers=1,
        restarts=2,
        addresses=["10.244.1.2"],
    )


def picture(**changes: Any) -> Picture:
    whole: dict[str, Any] = {
        "name": "demo",
        "mode": "ipvs",
        "families": ["IPv4"],
        "store": "etcd",
        "security": "tls",
        "profile": "lab",
        "api_url": "https://192.168.49.1:6443",
        "hosts": [
            HostPicture(name="control1", kind="control", addresses=["192.168.50.201"]),
            HostPicture(name="node1", kind="node", addresses=["192.168.50.11"]),
            HostPicture(name="outside1", kind="outside", addresses=["198.51.100.11"]),
        ],
        "control_plane": [
            ProcessPicture(host="control1", role="manager", pid=7, starts=3, leads=True),
            ProcessPicture(host="control1", role="scheduler", pid=8, starts=1),
            ProcessPicture(host="node1", role="proxy", pid=9, starts=1),
            ProcessPicture(host="node1", role="kubelet"),
        ],
        "nodes": [NodePicture(name="node1", ready=False)],
        "pods": [pod("front"), pod("job", "Succeeded", 0), pod("lost", "Pending", 0, node="")],
        "services": [
            ServicePicture(
                namespace="shop",
                name="front",
                type="ClusterIP",
                addresses=["10.96.0.5"],
                ports=["80/TCP"],
                endpoints=1,
            )
        ],
    }
    return Picture(**{**whole, **changes})


def tiles(found: view.Found) -> Mapping[str, Tile]:
    return {tile.label: tile for tile in view.build(found).tiles}


def test_parts_are_up_hung_or_down_and_a_hung_one_lives() -> None:
    hung = frozenset({("node1", "proxy")})
    found = view.build(view.Found(picture=picture(), now=5.0, hung=hung))
    lan, outside = found.segments
    control, node = lan.hosts
    assert [(one.role, one.state) for one in node.parts] == [
        ("proxy", "hung"),
        ("kubelet", "down"),
    ]
    assert [(one.role, one.leads, one.restarts) for one in control.parts] == [
        ("manager", True, 2),
        ("scheduler", False, 0),
    ]
    assert (control.ready, node.ready) == (None, False)
    assert [host.name for host in outside.hosts] == ["outside1"]
    tile = tiles(view.Found(picture=picture(), now=5.0, hung=hung))["Parts up"]
    assert (tile.value, tile.note, tile.tone) == ("2/4", "1 hung", "bad")


def test_pods_stand_on_their_nodes_and_are_well_if_ready_or_done() -> None:
    found = view.build(view.Found(picture=picture(), now=5.0))
    node = found.segments[0].hosts[1]
    assert [(one.name, one.well) for one in node.pods] == [
        ("shop/front", True),
        ("shop/job", True),
    ]
    assert tiles(view.Found(picture=picture(), now=5.0))["Pods well"].value == "2/3"


def test_who_leads_and_that_nobody_does() -> None:
    found = view.build(view.Found(picture=picture(), now=5.0))
    assert [(one.role, one.host) for one in found.leaders] == [
        ("manager", "control1"),
        ("scheduler", ""),
    ]


def test_without_the_api_the_nodes_that_should_be_there_are_missed() -> None:
    found = view.Found(picture=picture(api="timed out", nodes=[], pods=[], services=[]), now=5.0)
    assert view.build(found).trouble == ["The API does not answer: timed out"]
    tile = tiles(found)["Nodes ready"]
    assert (tile.value, tile.tone) == ("0/1", "bad")


def test_a_monitor_that_is_not_well_is_told() -> None:
    blind = Watch(host="monitor2", trouble=["Prometheus does not answer"])
    found = view.build(view.Found(picture=picture(monitors=[blind]), now=5.0))
    assert found.trouble == ["monitor2: Prometheus does not answer"]


def test_loss_is_that_of_the_worst_service() -> None:
    probed: dict[tuple[str, str], tuple[float | None, float | None]] = {
        ("shop", "front"): (0.125, 3.0),
        ("shop", "cart"): (0.0, None),
    }
    found = view.Found(picture=picture(), now=5.0, probed=probed, monitored=True)
    assert tiles(found)["Worst loss"] == Tile(
        label="Worst loss", value="12.50%", note="shop/front", tone="loss"
    )
    (service,) = view.build(found).services
    assert (service.loss, service.latency_ms) == (0.125, 3.0)
    nothing = view.Found(picture=picture(), now=5.0, probed={("a", "b"): (0.0, None)})
    assert tiles(nothing)["Worst loss"].value == "0 %"
    assert tiles(view.Found(picture=picture(), now=5.0))["Worst loss"].note.startswith(
        "no probers"
    )


def test_the_dead_mans_switch_is_no_alarm() -> None:
    alerts = [
        Alert(name="A", state="firing", severity="critical", where="", since=1.0),
        Alert(name="B", state="pending", severity="warning", where="", since=1.0),
        Alert(name="Watchdog", state="firing", severity="none", where="", since=1.0),
    ]
    tile = tiles(view.Found(picture=picture(), now=5.0, alerts=alerts, monitored=True))[
        "Alerts firing"
    ]
    assert (tile.value, tile.note, tile.tone) == ("1", "1 pending", "bad")


def test_the_newest_events_come_first_and_there_are_not_too_many() -> None:
    events = [Event(at=at, kind="Normal", reason="x", about="", text="") for at in range(100)]
    shown = view.newest(events)
    assert (len(shown), shown[0].at) == (view.EVENTS_SHOWN, 99)


def test_rates_are_between_two_looks_and_unknown_after_a_new_interface() -> None:
    first = counters.parse(NET_DEV, "eth0", 10.0)
    assert first == Carried(10.0, 4000, 3000)
    assert counters.parse(NET_DEV, "eth1", 10.0) is None
    assert counters.rates(first, Carried(12.0, 4100, 3050)) == (50.0, 25.0)
    assert counters.rates(None, first) == (None, None)
    assert counters.rates(first, Carried(12.0, 1, 1)) == (None, None)
    assert counters.rates(first, first) == (None, None)


def test_the_counters_of_this_machine_can_be_read() -> None:
    found = counters.read("lo", 1.0)
    assert found is not None
    assert found.received >= 0


def test_alerts_as_prometheus_tells_them() -> None:
    at = "2026-01-02T03:04:05.6Z"
    data = {
        "alerts": [
            {"labels": {"alertname": "Low", "severity": "warning"}, "state": "firing"},
            {
                "labels": {
                    "alertname": "High",
                    "severity": "critical",
                    "node": "n1",
                    "remediation": "restart-proxy",
                },
                "annotations": {"summary": "It burns."},
                "state": "firing",
            },
            {"labels": {"alertname": "Soon", "severity": "critical"}, "state": "pending"},
            {"labels": {"alertname": "Watchdog", "severity": "none"}, "state": "firing"},
        ]
    }
    for one in data["alerts"]:
        one["activeAt"] = at
    found = prometheus.alerts(data)
    assert [one.name for one in found] == ["High", "Low", "Watchdog", "Soon"]
    assert (found[0].where, found[0].text, found[0].since) == (
        "node=n1",
        "It burns.",
        1767323045.0,
    )


def test_series_have_names_and_gaps() -> None:
    found = prometheus.series(
        [
            {"metric": {"service": "b", "namespace": "a"}, "values": [[1, "0.5"], [2, "NaN"]]},
            {"metric": {}, "values": []},
        ]
    )
    assert [
        (one.name, [tuple(p for p in (q.at, q.value)) for q in one.points]) for one in found
    ] == [
        ("a b", [(1.0, 0.5), (2.0, None)]),
        ("all", []),
    ]


@pytest.mark.parametrize("profile", list(Profile))
def test_questions_fit_the_interval_of_the_profiles_scrapes(profile: Profile) -> None:
    asked = queries.Queries(profile)
    window = {"lab": "[15s]", "production": "[2m]"}[profile]
    texts = [one.query for one in asked.charts]
    texts += [asked.loss_of_services, asked.latency_of_services]
    assert all(window in text for text in texts)


def test_what_is_told_of_no_service_is_left_out() -> None:
    told = [({"namespace": "a", "service": "b"}, 1.0), ({"node": "n"}, 2.0)]
    assert queries.by_service(told) == {("a", "b"): 1.0}


@pytest.mark.parametrize(
    ("times", "at"),
    [
        ({"lastTimestamp": "1970-01-01T00:00:09Z"}, 9.0),
        ({"eventTime": "1970-01-01T00:00:08.000001Z", "lastTimestamp": None}, 8.0),
        ({}, 7.0),
    ],
)
def test_events_of_both_apis(times: dict[str, Any], at: float) -> None:
    about = {"kind": "Pod", "namespace": "shop", "name": "front"}
    found = looking.event(
        {
            "metadata": {"creationTimestamp": "1970-01-01T00:00:07Z"},
            "involvedObject": about,
            "type": "Warning",
            "reason": "Unhealthy",
            "message": "no",
            "count": 3,
            **times,
        }
    )
    assert (found.at, found.kind, found.about, found.count) == (at, "Warning", "Pod shop/front", 3)
