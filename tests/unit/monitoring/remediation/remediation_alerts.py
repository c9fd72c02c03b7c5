"""Notifications as Alertmanager writes them, and actions that only remember."""

import datetime
import json
from typing import Any

from kproxy.monitoring.remediation.seams import Limits, Outcome, Target, Verdict

NEVER = "0001-01-01T00:00:00Z"
START = 1_800_000_000.0
"""When the tests' alerts begin, in seconds since the epoch."""


def stamp(seconds: float) -> str:
    """Return a time as Alertmanager writes it."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def alert(
    node: str = "n1",
    *,
    firing: bool = True,
    starts: float = START,
    ends: float = 0.0,
    action: str = "mend",
    fingerprint: str = "",
    **labels: str,
) -> dict[str, Any]:
    """Return one alert of a notification."""
    return {
        "status": "firing" if firing else "resolved",
        "labels": {"alertname": "Broken", "node": node, "remediation": action, **labels},
        "annotations": {"summary": "it is broken"},
        "startsAt": stamp(starts),
        "endsAt": stamp(ends) if ends else NEVER,
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint or f"of-{node}",
    }


def notification(*alerts: dict[str, Any], **fields: Any) -> bytes:
    """Return the body of a request with these alerts."""
    body = {
        "version": "4",
        "groupKey": '{}:{alertname="Broken"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "remediation",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager",
        "alerts": list(alerts),
        **fields,
    }
    return json.dumps(body).encode()


class Mend:
    """An action that remembers its calls; what it answers can be changed."""

    name = "mend"
    summary = "mends"
    needs = frozenset({"node"})

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.helps = Verdict(True, "it is broken")
        self.outcome = Outcome(True, "mended")
        self.well = Verdict(True, "it is whole")
        self.ran: list[Target] = []
        self.verified: list[Target] = []

    def check(self, target: Target) -> Verdict:
        return self.helps

    def run(self, target: Target) -> Outcome:
        self.ran.append(target)
        return self.outcome

    def verify(self, target: Target) -> Verdict:
        self.verified.append(target)
        return self.well
