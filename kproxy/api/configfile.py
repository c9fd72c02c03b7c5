"""Reading KubeProxyConfiguration: checks, defaults, and what to tell the user.

What this version does not honour is told once for each field that is set to something else than
its default, so that no setting is ignored in silence.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from kproxy.errors import InvalidObject

from . import addresses, codec
from .config import API_VERSION, KIND, KubeProxyConfiguration, Section, with_defaults
from .durations import Duration

MODES = ("iptables", "ipvs", "nftables")
SCHEDULERS = (
    "rr",
    "wrr",
    "lc",
    "wlc",
    "lblc",
    "lblcr",
    "sh",
    "dh",
    "sed",
    "nq",
    "mh",
    "fo",
    "ovf",
)
LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")

HONOURED = frozenset(
    {
        "clientConnection.kubeconfig",
        "hostnameOverride",
        "healthzBindAddress",
        "mode",
        "clusterCIDR",
        "detectLocalMode",
        "iptables.masqueradeBit",
        "iptables.masqueradeAll",
        "iptables.syncPeriod",
        "iptables.minSyncPeriod",
        "ipvs.syncPeriod",
        "ipvs.minSyncPeriod",
        "ipvs.scheduler",
        "ipvs.excludeCIDRs",
        "ipvs.strictARP",
        "ipvs.tcpTimeout",
        "ipvs.tcpFinTimeout",
        "ipvs.udpTimeout",
        "conntrack.tcpEstablishedTimeout",
        "conntrack.tcpCloseWaitTimeout",
        "conntrack.udpTimeout",
        "conntrack.udpStreamTimeout",
    }
)
"""The fields that have an effect."""

# What kube-proxy itself writes for fields that are absent: no reason for a note. These count as
# absent too: absent sections and empty values.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "bindAddress": ("0.0.0.0", "::"),  # noqa: S104 a hint for the node IP; nothing is bound to it
    "clientConnection.contentType": ("application/json", "application/vnd.kubernetes.protobuf"),
    "clientConnection.qps": (0, 5),
    "clientConnection.burst": (0, 10),
    "configSyncPeriod": ("0s", "15m", "15m0s"),
    "conntrack.maxPerCore": (0, 32768),
    "conntrack.min": (0, 131072),
    "iptables.localhostNodePorts": (True,),
    "metricsBindAddress": ("127.0.0.1:10249", "127.0.0.1"),
    "nftables.masqueradeBit": (14,),
    "oomScoreAdj": (-999, 0),
}


class LoadedConfig(NamedTuple):
    """A configuration, with what should be told to the user about it."""

    config: KubeProxyConfiguration
    warnings: list[InvalidObject]
    """Fields that do not exist."""
    notes: list[str]
    """Fields that are set but not honoured by this version, one line each."""


def decode_config(data: dict[str, Any], where: str = "") -> LoadedConfig:
    """Read a configuration file's content; ``where`` names the file in messages.

    Raises :class:`InvalidObject` for another kind or version, and for the first field that has a
    wrong type or an impossible value.
    """
    label = f"{KIND} in {where}" if where else KIND
    _check_version(data, label)
    body = {key: value for key, value in data.items() if key not in ("apiVersion", "kind")}
    warnings = [
        InvalidObject(label, path, "unknown field", remedy="remove it, or correct its spelling")
        for path in _unknown(body, KubeProxyConfiguration)
    ]
    body = _without_null(body)
    try:
        config = msgspec.convert(body, KubeProxyConfiguration, dec_hook=_duration)
    except msgspec.ValidationError as error:
        field, problem, remedy = codec.explain(error)
        raise InvalidObject(label, field, problem, remedy=remedy) from None
    _check(config, label)
    return LoadedConfig(with_defaults(config), warnings, _notes(body, KubeProxyConfiguration))


def _check_version(data: dict[str, Any], label: str) -> None:
    for field, wanted in (("kind", KIND), ("apiVersion", API_VERSION)):
        found = data.get(field)
        if found != wanted:
            problem = "is missing" if found is None else f"cannot read {found!r}"
            raise InvalidObject(label, field, problem, remedy=f"write {field}: {wanted}")


def _duration(wanted: type, value: Any) -> Duration:
    if wanted is not Duration:
        raise AssertionError(wanted)
    if not isinstance(value, str):
        raise ValueError(f"must be a duration such as 30s, not {value!r}")
    return Duration.parse(value)


def _without_null(data: dict[str, Any]) -> dict[str, Any]:
    """Drop fields that are null: for Go they are absent."""
    return {
        key: _without_null(value) if isinstance(value, dict) else value
        for key, value in data.items()
        if value is not None
    }


def _sections(wanted: type[Section]) -> dict[str, Any]:
    """Return the types of a section's fields by their names in the file."""
    names = zip(wanted.__struct_encode_fields__, wanted.__struct_fields__, strict=True)
    return {encoded: wanted.__annotations__[name] for encoded, name in names}


def _unknown(data: dict[str, Any], wanted: type[Section], prefix: str = "") -> list[str]:
    found = []
    known = _sections(wanted)
    for key, value in data.items():
        inner = known.get(key)
        if key not in known:
            found.append(f"{prefix}{key}")
        elif isinstance(inner, type) and issubclass(inner, Section) and isinstance(value, dict):
            found += _unknown(value, inner, f"{prefix}{key}.")
    return found


def _notes(data: dict[str, Any], wanted: type[Section], prefix: str = "") -> list[str]:
    notes = []
    for key, inner in _sections(wanted).items():
        path, value = f"{prefix}{key}", data.get(key)
        if isinstance(inner, type) and issubclass(inner, Section):
            notes += _notes(value or {}, inner, f"{path}.")
        elif path not in HONOURED and not _is_default(path, value):
            notes.append(f"{path} is not honoured by this version")
    mode = data.get("detectLocalMode")
    if wanted is KubeProxyConfiguration and mode not in (None, "", "ClusterCIDR"):
        notes.append(f"detectLocalMode {mode} is not honoured by this version: only ClusterCIDR")
    return notes


def _is_default(path: str, value: Any) -> bool:
    if value in (None, "", [], {}):
        return True
    if path in _HARMLESS:
        return value in _HARMLESS[path]
    if path.startswith("nftables.") and path.endswith("Period"):
        return True  # says nothing while the mode is another one; the mode itself is checked
    if path == "logging":
        return bool(value.get("format", "text") in ("", "text"))
    return not value or value == "0s"


def _check(config: KubeProxyConfiguration, label: str) -> None:
    """Raise for the first impossible value."""
    faults = (*_word_faults(config), *_number_faults(config), *_address_faults(config))
    for field, problem, remedy in faults:
        raise InvalidObject(label, field, problem, remedy=remedy)


Fault = tuple[str, str, str]


def _word_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    words = (
        ("mode", config.mode, MODES),
        ("ipvs.scheduler", config.ipvs.scheduler, SCHEDULERS),
        ("detectLocalMode", config.detect_local_mode, LOCAL_MODES),
    )
    for field, value, known in words:
        if value and value not in known:
            yield field, f"unknown value {value!r}", f"use one of {', '.join(known)}"


def _number_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    for section in ("iptables", "nftables"):
        bit = getattr(config, section).masquerade_bit
        if bit is not None and not 0 <= bit <= 31:
            yield f"{section}.masqueradeBit", f"{bit} is out of range", "use 0 to 31"
    for path, value in _durations(config):
        if value < 0:
            yield path, "is negative", "give a duration of 0s or more"
    filled = with_defaults(config)
    for section in ("iptables", "ipvs", "nftables"):
        periods = getattr(filled, section)
        if periods.min_sync_period > periods.sync_period:
            remedy = f"make it at most {section}.syncPeriod"
            yield f"{section}.minSyncPeriod", "is longer than the sync period", remedy


def _durations(section: Section, prefix: str = "") -> Iterator[tuple[str, Duration]]:
    names = zip(section.__struct_encode_fields__, section.__struct_fields__, strict=True)
    for encoded, name in names:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _durations(value, f"{prefix}{encoded}.")
        elif isinstance(value, Duration):
            yield f"{prefix}{encoded}", value


def _address_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    networks = [part.strip() for part in config.cluster_cidr.split(",")]
    listed = [("clusterCIDR", part) for part in networks if config.cluster_cidr]
    for index, part in enumerate(config.ipvs.exclude_cidrs or ()):
        listed.append((f"ipvs.excludeCIDRs[{index}]", part))
    for field, part in listed:
        if addresses.parse_network(part) is None:
            yield field, f"{part!r} is not a network", "use CIDR notation, such as 10.128.0.0/14"
    filled = with_defaults(config)
    for field, text in (
        ("healthzBindAddress", filled.healthz_bind_address),
        ("metricsBindAddress", filled.metrics_bind_address),
    ):
        if split_host_port(text) is None:
            yield field, f"{text!r} is not address:port", "use for example 0.0.0.0:10256"


def split_host_port(text: str) -> tuple[str, int] | None:
    """Take ``address:port`` or ``[address]:port`` apart, or return None if it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    parsed = addresses.parse_address(host)
    return (parsed.text, int(port)) if parsed else None
