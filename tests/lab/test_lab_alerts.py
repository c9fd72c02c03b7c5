"""Every alert of ``deploy/monitoring/rules`` fires when what it is about happens for real."""

import contextlib
import time
from collections.abc import Iterator

import alert_causes
import pytest
from monitored import ALWAYS, PATIENCE, Monitored, running

from kproxy.monitoring import profiles
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("etcd", "prometheus", "prometheus-alertmanager"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
ELSEWHERE = {
    ALWAYS: "it always fires (here, too)",
    "KproxyRemediationDown": "test_lab_alerts_calm: nobody acts on alerts in this cluster",
    "KproxyRemediationEscalated": "test_lab_alerts_calm: the same",
}
"""Alerts that are not caused here, and where they are."""


def every_alert() -> set[str]:
    documents = profiles.rules("lab").values()
    groups = [group for document in documents for group in document["groups"]]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    state = tmp_path_factory.mktemp("alerts")
    watched = {"monitoring": {"remediation": False}, "proxy": alert_causes.PROXY}
    with running(state, "alerts", **watched) as made:
        yield made


def test_every_rule_has_a_cause_and_every_cause_a_rule() -> None:
    caused = [alert for one in alert_causes.ROUNDS for each in one for alert in each.alerts]
    assert len(caused) == len(set(caused))
    assert set(caused) | set(ELSEWHERE) == every_alert()
    assert not set(caused) & set(ELSEWHERE)
    assert len(ELSEWHERE) <= 3


def name_of(causes: tuple[alert_causes.Cause, ...]) -> str:
    return "-".join(sorted(alert for one in causes for alert in one.alerts))


@pytest.mark.parametrize("causes", alert_causes.ROUNDS, ids=name_of)
def test_it_fires(lab: Monitored, causes: tuple[alert_causes.Cause, ...]) -> None:
    names = {alert for one in causes for alert in one.alerts}
    lab.settle()
    lab.await_ended(names)
    time.sleep(1.0)  # nothing happens: what fired before is not to count (by whole seconds)
    began = time.monotonic()
    with contextlib.ExitStack() as made:
        for one in causes:
            made.enter_context(one.make(lab))
        lab.await_fired(names, began)
    lab.await_it(lambda: ALWAYS in lab.firing(), PATIENCE, ALWAYS)
