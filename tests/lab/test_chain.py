"""A few links of the chain, broken for real, in virtual time and with short leases."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.lab import costmodel
from kproxy.lab.chain import run, settings, table
from kproxy.lab.clusterfile import Profile
from kproxy.traffic.chainset import ChainSet, LinkTrial
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
LEASE_S = 3.0
# ``after`` is longer than a response may take: so each request of an outage has an outcome.
PARAMETERS = settings.Parameters(
    members=0,
    profile=Profile.LAB,
    rates=dataclasses.replace(settings.RATES, udp_pps=100.0),
    timing=settings.Timing(before=7.0, after=3.0, hand=5.0),
)


@pytest.fixture(autouse=True)
def costs() -> Iterator[None]:
    """Starting a backend takes its time: in none at all nobody would notice that it does."""
    costmodel.apply(costmodel.resolve(None, costmodel.VIRTUAL))
    yield
    costmodel.apply(None)


def broken(path: Path, *links: str) -> ChainSet:
    wanted = dataclasses.replace(PARAMETERS, links=links)
    found = run.run(wanted, path / "lab", progress=lambda step: None)
    assert found.parameters["incomplete"] == []
    assert [trial.problems for trial in found.trials] == [()] * len(links)
    return found


def trial(found: ChainSet, link: str) -> LinkTrial:
    (one,) = [trial for trial in found.trials if trial.link == link]
    return one


def losses(one: LinkTrial, traffic: str) -> dict[str, int]:
    return {
        found.node: found.tcp.failed if found.tcp else found.lost or 0
        for found in one.measurements
        if found.traffic == traffic
    }


def test_who_repairs_what_and_what_does_not_work_meanwhile(tmp_path: Path) -> None:
    found = broken(tmp_path, "proxy-pod", "all-api-servers", "backend-pod")
    for link in ("proxy-pod", "all-api-servers"):
        one = trial(found, link)
        for traffic in ("udp", "tcp-established", "tcp-connect"):
            assert losses(one, traffic) == {"hit": 0, "other": 0, "outside": 0}
    pod = trial(found, "proxy-pod")
    assert pod.repair_ms is not None
    assert 0 < pod.repair_ms < 2000
    assert "DaemonSet controller" in next(e.detail for e in pod.timeline if e.name == "repaired")
    frozen = {one.node: one.pause.over_ms for one in pod.changes}
    assert frozen["other"] is not None
    assert frozen["other"] < 50
    away = trial(found, "all-api-servers")
    assert away.writes is not None
    assert away.writes.over_ms is not None
    assert away.writes.over_ms >= 4_900
    assert away.detect_ms is None
    backend = trial(found, "backend-pod")
    assert sum(losses(backend, "tcp-established").values()) > 0
    assert backend.repair_ms is not None
    assert backend.repair_ms < 1000


def test_a_rolling_update_of_careful_backends_loses_nothing_and_one_of_careless_does(
    tmp_path: Path,
) -> None:
    assert table.LINKS["rollout"].connects_per_s == 1000.0
    found = broken(tmp_path, "rollout", "careless-rollout")
    careful, careless = trial(found, "rollout"), trial(found, "careless-rollout")
    attempted = sum(m.tcp.attempted for m in careful.measurements if m.tcp and m.node == "outside")
    assert attempted > 333 * 10
    assert losses(careful, "tcp-connect") == {"hit": 0, "other": 0, "outside": 0}
    assert sum(losses(careless, "tcp-connect").values()) > 0
