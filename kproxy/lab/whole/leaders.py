"""Who leads: the holders of Leases, and the leader of the etcd cluster."""

from dataclasses import dataclass
from typing import Any

import msgspec

from kproxy.api import catalog
from kproxy.client import http1
from kproxy.controlplane import manager, scheduler
from kproxy.controlplane.storage.etcdmember import CLIENT_PORT
from kproxy.lab.site import ADMIN
from kproxy.lab.whole.api import Api
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.roles import Role
from netns.lab import AttachedLab

_LEASES = {Role.MANAGER: manager.NAME, Role.SCHEDULER: scheduler.NAME}
_NAMESPACE = "kube-system"
_TIMEOUT = 2.0
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An etcd member that answers."""

    host: str
    leads: bool


def leader(role: Role, api: Api, lab: AttachedLab, places: Places) -> str:
    """Return the host of the replica that leads; empty: none, or none that is known.

    Of a manager or scheduler: whose Lease it is. Its term may be over, if it has just died.
    Raises ApiError, Unreachable.
    """
    if role is Role.ETCD:
        return next((one.host for one in members(lab, places) if one.leads), "")
    lease: Any = api.get(catalog.LEASE, _NAMESPACE, _LEASES[role]) or {}
    holder = str((lease.get("spec") or {}).get("holderIdentity") or "")
    return holder.partition("_")[0]


def members(lab: AttachedLab, places: Places) -> list[Member]:
    """Return the etcd members that answer."""
    found = []
    for host in places.site.etcd:
        try:
            status = _status(lab, str(places.site.lan_address(host)))
            own = status["header"]
        except (OSError, ValueError, KeyError):  # it does not answer, or not in earnest
            continue
        found.append(Member(host=host, leads=status.get("leader", "0") == own["member_id"]))
    return found


def _status(lab: AttachedLab, address: str) -> dict[str, Any]:
    with lab.host(ADMIN).entered():
        connection = http1.Connection(
            address, CLIENT_PORT, tls=None, name=address, timeout=_TIMEOUT
        )
        try:
            response = connection.request("POST", "/v3/maintenance/status", _JSON, b"{}")
            return msgspec.json.decode(response.read(), type=dict[str, Any])
        finally:
            connection.close()
