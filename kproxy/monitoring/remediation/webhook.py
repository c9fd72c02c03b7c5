"""What Alertmanager sends to a webhook (format version 4), and Grafana, which calls it version 1.

Tolerant of fields that nobody needs, strict about those that decide: a notification is read whole,
or refused with the name of the field that is wrong.
"""

import datetime
from typing import NamedTuple

import msgspec

from kproxy.api import codec
from kproxy.errors import InvalidObject

VERSION = "4"
GRAFANAS = "1"
"""Grafana's name for the same form, with fields of its own: ``orgId`` is always there."""
ALERTS_MOST = 2000
"""Alerts in one notification; Alertmanager cuts them off at ``max_alerts``."""
TEXT_MOST = 1024
"""Longest value of a label, name or key that is kept, in characters."""
LABELS_MOST = 64

_OBJECT = "notification"
_NEVER = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)


class _Alert(msgspec.Struct, frozen=True, rename="camel"):
    status: str
    labels: dict[str, str]
    starts_at: datetime.datetime
    fingerprint: str
    ends_at: datetime.datetime = _NEVER


class _Notification(msgspec.Struct, frozen=True, rename="camel"):
    version: str
    group_key: str
    alerts: list[_Alert]
    status: str = ""
    receiver: str = ""
    truncated_alerts: int = 0


_read = msgspec.json.Decoder(_Notification).decode


class Alert(NamedTuple):
    """One alert of a notification. Times in seconds since the epoch."""

    fingerprint: str
    """What Alertmanager calls this set of labels."""
    firing: bool
    starts: float
    ends: float
    """When it ended; 0: it has not."""
    labels: dict[str, str]

    @property
    def name(self) -> str:
        """Return the alert's name."""
        return self.labels.get("alertname", "")


class Notification(NamedTuple):
    """One request of Alertmanager."""

    group_key: str
    receiver: str
    truncated: int
    """So many alerts of the group were left out."""
    alerts: tuple[Alert, ...]


def decode(body: bytes) -> Notification:
    """Read the body of a request. Raises :class:`InvalidObject`, naming the field."""
    _check_version(body)
    try:
        read = _read(body)
    except msgspec.ValidationError as error:
        raise _fault(*codec.explain(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise _fault("", f"is no JSON: {error}", "send what Alertmanager sends") from None
    if len(read.alerts) > ALERTS_MOST:
        problem = f"holds {len(read.alerts)} alerts, more than {ALERTS_MOST}"
        raise _fault("alerts", problem, "set max_alerts in the webhook's configuration")
    _check_text("groupKey", read.group_key, empty=True)
    _check_text("receiver", read.receiver, empty=True)
    alerts = tuple(_alert(one, f"alerts[{index}]") for index, one in enumerate(read.alerts))
    return Notification(read.group_key, read.receiver, max(read.truncated_alerts, 0), alerts)


class _Version(msgspec.Struct, rename="camel"):
    version: msgspec.Raw = msgspec.Raw()
    org_id: msgspec.Raw = msgspec.Raw()


def _check_version(body: bytes) -> None:
    """Raise for another version before anything else: other fields may then be missing, too."""
    try:
        read = msgspec.json.decode(body, type=_Version)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
        return  # The whole is told what is wrong with it.
    found = bytes(read.version).decode(errors="replace")
    understood = GRAFANAS if bytes(read.org_id) else VERSION
    if found not in (f'"{VERSION}"', f'"{understood}"'):
        problem = f"is {found[:40]}, and only {VERSION!r} is understood" if found else "is missing"
        raise _fault("version", problem, "send from Alertmanager's webhook_configs")


def _alert(read: _Alert, where: str) -> Alert:
    if read.status not in ("firing", "resolved"):
        problem = f"{read.status[:40]!r} is neither firing nor resolved"
        raise _fault(f"{where}.status", problem, "correct its value")
    if len(read.labels) > LABELS_MOST:
        raise _fault(f"{where}.labels", f"are more than {LABELS_MOST}", "drop labels")
    _check_text(f"{where}.fingerprint", read.fingerprint)
    for name, value in read.labels.items():
        _check_text(f"{where}.labels", name)
        _check_text(f"{where}.labels.{name}", value, empty=True)
    return Alert(
        read.fingerprint,
        read.status == "firing",
        _seconds(read.starts_at, f"{where}.startsAt"),
        _seconds(read.ends_at, f"{where}.endsAt") if read.ends_at.year > 1 else 0.0,
        read.labels,
    )


def _seconds(at: datetime.datetime, where: str) -> float:
    if at.tzinfo is None:
        raise _fault(where, "has no time zone", "write it as 2006-01-02T15:04:05Z")
    seconds = at.timestamp()
    if seconds <= 0:
        raise _fault(where, "is before 1970", "correct its value")
    return seconds


def _check_text(where: str, value: str, *, empty: bool = False) -> None:
    if not value and not empty:
        raise _fault(where, "is empty", "correct its value")
    if len(value) > TEXT_MOST:
        raise _fault(where[:200], f"is longer than {TEXT_MOST} characters", "shorten it")


def _fault(field: str, problem: str, remedy: str) -> InvalidObject:
    return InvalidObject(_OBJECT, field, problem, remedy=remedy)
