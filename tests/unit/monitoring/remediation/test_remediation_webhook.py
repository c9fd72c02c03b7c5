import json
from typing import Any

import pytest
from remediation_alerts import START, alert, notification, stamp

from kproxy.errors import InvalidObject
from kproxy.monitoring.remediation import webhook


def test_what_alertmanager_sends_is_read() -> None:
    body = notification(alert("n1"), alert("n2", firing=False, ends=START + 60), truncatedAlerts=3)
    read = webhook.decode(body)
    assert (read.group_key, read.receiver, read.truncated) == (
        '{}:{alertname="Broken"}',
        "remediation",
        3,
    )
    first, second = read.alerts
    assert (first.firing, first.starts, first.ends, first.name) == (True, START, 0.0, "Broken")
    assert (second.firing, second.ends, second.labels["node"]) == (False, START + 60, "n2")


def test_nanoseconds_and_other_zones_are_read() -> None:
    one = {**alert(), "startsAt": "2027-01-15T09:00:00.123456789+01:00"}
    assert webhook.decode(notification(one)).alerts[0].starts == pytest.approx(
        1_800_000_000.123457, abs=1e-6
    )


@pytest.mark.parametrize("version", ["1", "4"])
def test_what_grafana_adds_is_no_fault(version: str) -> None:
    one = {**alert(), "silenceURL": "x", "values": {"A": 1}, "valueString": None, "imageURL": ""}
    body = notification(one, version=version, orgId=1, title="t", state="alerting")
    assert len(webhook.decode(body).alerts) == 1


def without(field: str) -> bytes:
    body = json.loads(notification(alert()))
    del body[field]
    return json.dumps(body).encode()


def with_alert(**fields: Any) -> bytes:
    return notification({**alert(), **fields})


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        (b"", "", "is no JSON"),
        (b"{", "", "is no JSON"),
        (b'{"a":' + b"[" * 100_000, "", "is no JSON"),
        (b"[]", "", "must be"),
        (b"\xff\xfe", "", "is no JSON"),
        (notification(version="3"), "version", "only '4' is understood"),
        (notification(version=4), "version", "only '4' is understood"),
        (notification(version="1"), "version", "only '4' is understood"),
        (notification(version="3", orgId=1), "version", "only '4' is understood"),
        (without("version"), "version", "is missing"),
        (without("alerts"), "alerts", "is missing"),
        (without("groupKey"), "groupKey", "is missing"),
        (notification(alerts={}), "alerts", "must be"),
        (notification(truncatedAlerts="many"), "truncatedAlerts", "must be"),
        (with_alert(status="pending"), "alerts[0].status", "neither firing nor resolved"),
        (with_alert(startsAt="yesterday"), "alerts[0].startsAt", "invalid RFC3339"),
        (with_alert(startsAt="2027-01-15T09:00:00"), "alerts[0].startsAt", "no time zone"),
        (with_alert(startsAt=stamp(-5)), "alerts[0].startsAt", "before 1970"),
        (with_alert(fingerprint=""), "alerts[0].fingerprint", "is empty"),
        (with_alert(fingerprint="f" * 2000), "alerts[0].fingerprint", "is longer"),
        (with_alert(labels={"a": 1}), "alerts[0].labels", "must be"),
        (with_alert(labels={"a": "b" * 2000}), "alerts[0].labels.a", "is longer"),
        (with_alert(labels={f"l{i}": "" for i in range(99)}), "alerts[0].labels", "more than 64"),
        (notification(*[alert()] * 2001), "alerts", "more than 2000"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, field: str, problem: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        webhook.decode(body)
    assert caught.value.field.startswith(field)
    assert problem in caught.value.problem
