"""What the versions of KubeProxyConfiguration files say in different words, as tables.

v1alpha1 has the sync periods and ``masqueradeAll`` once for each mode, and Linux' own settings at
the top; v1alpha2 has them where :mod:`kproxy.api.config` has. Converting is moving: the content of
a file, a mapping, goes in and another comes out, whatever values it holds, so that they are
checked once and in one place.

A file of version v1alpha1 may also hold what only v1alpha2 can say (:data:`ADDED`): else not every
configuration could be written as such a file. kube-proxy ignores those fields with a warning.
"""

from collections.abc import Mapping
from typing import Any

from . import addresses
from .config import MODES, Version
from .durations import Duration

Body = dict[str, Any]

_MOVED = {
    "bindAddress": "nodeIPOverride",
    "clusterCIDR": "detectLocal.clusterCIDRs",
    "conntrack": "linux.conntrack",
    "oomScoreAdj": "linux.oomScoreAdj",
    "windowsRunAsService": "windows.runAsService",
}
ADDED = (
    "configHardFail",
    "nodeIPOverride",
    "ipFamilyPolicy",
    "minSyncPeriod",
    "ipvs.masqueradeBit",
)
"""Fields of v1alpha2 that a v1alpha1 file may hold."""
NOT_YET = ("linux", "windows", "syncPeriod", "detectLocal.clusterCIDRs")
"""Fields of v1alpha2 that v1alpha1 says in other words: there they are unknown."""


def moved(mode: str) -> Mapping[str, str]:
    """Return where a v1alpha1 file for this mode has what v1alpha2 has elsewhere."""
    rules = mode if mode in MODES else "iptables"
    masquerade = "nftables" if mode == "nftables" else "iptables"
    return {
        **_MOVED,
        f"{rules}.syncPeriod": "syncPeriod",
        f"{rules}.minSyncPeriod": "minSyncPeriod",
        f"{masquerade}.masqueradeAll": "linux.masqueradeAll",
    }


def name_in(version: Version, path: str, mode: str) -> str:
    """Return how a field of the configuration is called in a file of a version."""
    if version is Version.V1ALPHA1:
        for old, new in moved(mode).items():
            if path == new or path.startswith((f"{new}.", f"{new}[")):
                # The networks of pods and the node's address are no lists there.
                rest = path[len(new) :]
                return old if rest.startswith("[") else old + rest
    return path


def from_v1alpha1(body: Body, mode: str) -> Body:
    """Return the content of a v1alpha1 file as v1alpha2 says it. ``body`` is left as it is."""
    result = _copy(body)
    _bind_address_from_v1alpha1(result)
    for old, new in moved(mode).items():
        value = remove(result, old)
        if new == "detectLocal.clusterCIDRs" and isinstance(value, str):
            value = [part.strip() for part in value.split(",")] if value else None
        if old.endswith("Period") and not old.startswith("ipvs.") and _is_zero(value):
            value = None  # there it stands for the default
        if value is not None:
            put(result, new, value, keep=True)
    for section in MODES:
        for name in ("syncPeriod", "minSyncPeriod", "masqueradeAll"):
            remove(result, f"{section}.{name}")  # of the other modes: without effect
    remove(result, "portRange")
    bit = get(result, "iptables.masqueradeBit")
    if bit is not None:
        put(result, "ipvs.masqueradeBit", bit, keep=True)
    return result


def to_v1alpha1(body: Body, mode: str) -> Body:
    """Return the content of a v1alpha2 file, in which nothing is left to defaults, as v1alpha1."""
    result = _copy(body)
    own = result.get("nodeIPOverride") or []
    result["bindAddress"] = "0.0.0.0"  # noqa: S104  which there stands for none
    if len(own) == 1:
        result["bindAddress"] = own[0]
    if len(own) < 2:
        result.pop("nodeIPOverride", None)
    for old, new in moved(mode).items():
        if old == "bindAddress" or (
            new == "minSyncPeriod" and mode != "ipvs" and _is_zero(result.get(new))
        ):
            continue
        value = remove(result, new)
        if old == "clusterCIDR":
            value = ",".join(value or [])
        if value is not None:
            put(result, old, value)
    for section in ("linux", "windows"):
        if not result.get(section):
            result.pop(section, None)
    for field in ("configHardFail", "ipFamilyPolicy"):
        if not result.get(field):
            result.pop(field, None)
    if get(result, "ipvs.masqueradeBit") == get(result, "iptables.masqueradeBit"):
        remove(result, "ipvs.masqueradeBit")
    return result


def _bind_address_from_v1alpha1(body: Body) -> None:
    """Turn the address that nothing is bound to into what it means."""
    value = body.get("bindAddress")
    if not isinstance(value, str):
        return
    parsed = addresses.parse_address(value)
    if parsed and parsed.version == 6:
        for key, default in (
            ("healthzBindAddress", "[::]:10256"),
            ("metricsBindAddress", "[::1]:10249"),
        ):
            body[key] = body.get(key) or default
    given = value and not (parsed and addresses.special_use(parsed.text) == "unspecified")
    body["bindAddress"] = [value] if given else None


def get(body: Body, path: str) -> Any:
    """Return a field's value; None if it, or a section above it, is absent or no mapping."""
    value: Any = body
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def put(body: Body, path: str, value: Any, *, keep: bool = False) -> bool:
    """Set a field, and make the sections above it; return whether it was set.

    It is not where a section is no mapping, or, with ``keep``, where there is a value already.
    """
    *parents, key = path.split(".")
    for parent in parents:
        if body.get(parent) is None:
            body[parent] = {}
        body = body[parent]
        if not isinstance(body, dict):
            return False
    if keep and body.get(key) is not None:
        return False
    body[key] = value
    return True


def remove(body: Body, path: str) -> Any:
    """Remove a field and return its value; None if it is absent."""
    *parents, key = path.split(".")
    section = get(body, ".".join(parents)) if parents else body
    return section.pop(key, None) if isinstance(section, dict) else None


def _is_zero(value: Any) -> bool:
    try:
        return isinstance(value, str) and not Duration.parse(value)
    except ValueError:
        return False


def _copy(data: Body) -> Body:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in data.items()}
