"""Reading and writing KubeProxyConfiguration files: versions, defaults, and what to tell the user.

A field without an effect on this proxy is told once if it is set to something else than its
default, with the reason, so that no setting is ignored in silence. What values are possible is
the business of :mod:`kproxy.api.configchecks`.
"""

from typing import Any, NamedTuple

import msgspec

from kproxy.errors import InvalidObject

from . import codec, configchecks, configversions
from .config import KIND, Conntrack, KubeProxyConfiguration, Section, Version, with_defaults
from .configversions import Body
from .durations import Duration

_GO = "it concerns the runtime of Go programs"
_JSON = "API objects are exchanged as JSON"
_FEW = "the proxy lists once and watches: there is nothing to limit"
_WINDOWS = "it concerns Windows only"

NO_EFFECT: dict[str, str] = {
    "clientConnection.acceptContentTypes": _JSON,
    "clientConnection.contentType": _JSON,
    "clientConnection.qps": _FEW,
    "clientConnection.burst": _FEW,
    "configSyncPeriod": "watches tell every change: nothing is listed again without need",
    "enableProfiling": _GO,
    "ipFamilyPolicy": "a node serves the IP families that its Services have",
    "featureGates": "the features of kube-proxy's releases are all on or all absent here",
    "logging": "log lines are always JSON, and written at once",
    "showHiddenMetricsForVersion": "no metric is hidden",
    "windows.runAsService": _WINDOWS,
    "winkernel": _WINDOWS,
}
"""Fields of kube-proxy that change nothing here, and why."""

# What kube-proxy itself writes for fields that are absent: no reason for a note. These count as
# absent too: absent sections and empty values.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "clientConnection.contentType": ("application/json", "application/vnd.kubernetes.protobuf"),
    "clientConnection.qps": (0, 5),
    "clientConnection.burst": (0, 10),
}


class LoadedConfig(NamedTuple):
    """A configuration, with what should be told to the user about it."""

    config: KubeProxyConfiguration
    version: Version
    """The version of the file that it was read from; without a file the first."""
    warnings: list[InvalidObject]
    """Fields that do not exist."""
    notes: list[str]
    """Fields that are set but have no effect, one line each, and why."""


class Source(NamedTuple):
    """The content of a file as the newest version says it, not checked yet."""

    body: Body
    version: Version
    mode: str
    label: str
    """How messages name it."""
    warnings: list[InvalidObject]
    notes: list[str]

    def name(self, path: str) -> str:
        """Return what the file calls a field of the configuration."""
        return configversions.name_in(self.version, path, self.mode)


def decode_config(data: Body, where: str = "") -> LoadedConfig:
    """Read a configuration file's content; ``where`` names the file in messages.

    Raises :class:`InvalidObject` for another kind or version, and for the first field that has a
    wrong type or an impossible value.
    """
    return decode(open_source(data, where))


def open_source(data: Body, where: str = "", mode: str = "") -> Source:
    """Bring a file's content into the form of the newest version; ``mode`` is used if it has none.

    Raises :class:`InvalidObject` for another kind or version.
    """
    label = f"{KIND} in {where}" if where else KIND
    version = _version(data, label)
    body = {key: value for key, value in data.items() if key not in ("apiVersion", "kind")}
    body = _without_null(body)
    given = body.get("mode") or mode
    mode = given if isinstance(given, str) else ""
    if version is Version.V1ALPHA2:
        warnings = [_unknown(label, path, _now_called(path, mode)) for path in _strange(body)]
        return Source(body, version, mode, label, warnings, [])
    _convert(body, _Old, label)
    now = configversions.from_v1alpha1(body, mode)
    unknown = [configversions.name_in(version, path, mode) for path in _strange(now)]
    early = [path for path in configversions.NOT_YET if configversions.get(body, path) is not None]
    for path in early:
        configversions.remove(now, path)
    warnings = [_unknown(label, path) for path in unknown]
    newer = f"write apiVersion: {Version.V1ALPHA2}, which has it"
    warnings += [_unknown(label, path, newer) for path in early]
    notes = ["portRange has no effect: nothing uses it any more"] if body.get("portRange") else []
    return Source(now, version, mode, label, warnings, notes)


def decode(source: Source) -> LoadedConfig:
    """Return the configuration of a file's content, with its defaults.

    Raises :class:`InvalidObject` as :func:`decode_config` does, with the field as the file calls
    it; of unknown fields too if ``configHardFail`` asks for it.
    """
    body, label = _without_null(source.body), source.label
    config = _convert(body, KubeProxyConfiguration, label, source)
    full = with_defaults(config, source.version)
    for field, problem, remedy in configchecks.faults(config, full):
        raise InvalidObject(label, source.name(field), problem, remedy=remedy)
    if full.config_hard_fail and source.warnings:
        raise source.warnings[0]
    notes = [f"{source.name(path)} has no effect: {why}" for path, why in _idle(body)]
    return LoadedConfig(full, source.version, source.warnings, [*source.notes, *notes])


def encode_config(config: KubeProxyConfiguration, version: Version) -> Body:
    """Return the content of a file that says the same, nothing left to defaults.

    ``config`` has its defaults; reading the result gives an equal one.
    """
    body = _plain(config)
    if not config.make_before_break:
        del body["makeBeforeBreak"]  # other proxies do not know it
    if not config.linux.conntrack.clean_last:
        del body["linux"]["conntrack"]["cleanLast"]
    if version is Version.V1ALPHA1:
        body = configversions.to_v1alpha1(body, config.mode)
    return {"apiVersion": version.value, "kind": KIND, **dict(sorted(body.items()))}


class _OldMode(Section, frozen=True, kw_only=True, rename="camel"):
    """What v1alpha1 has for each mode: also that of unused modes must be possible."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    sync_period: Duration = Duration()
    min_sync_period: Duration = Duration()


class _Old(Section, frozen=True, kw_only=True, rename="camel"):
    """What v1alpha1 says in other types than v1alpha2."""

    bind_address: str = ""
    cluster_cidr: str = msgspec.field(default="", name="clusterCIDR")
    port_range: str = ""
    iptables: _OldMode = _OldMode()
    ipvs: _OldMode = _OldMode()
    nftables: _OldMode = _OldMode()
    conntrack: Conntrack = Conntrack()


def _version(data: Body, label: str) -> Version:
    for field, wanted in (("kind", [KIND]), ("apiVersion", list(Version))):
        found = data.get(field)
        if found not in wanted:
            problem = "is missing" if found is None else f"cannot read {found!r}"
            remedy = f"write {field}: {' or '.join(wanted)}"
            raise InvalidObject(label, field, problem, remedy=remedy)
    return Version(data["apiVersion"])


def _convert(body: Body, wanted: Any, label: str, source: Source | None = None) -> Any:
    try:
        return msgspec.convert(body, wanted, dec_hook=_duration)
    except msgspec.ValidationError as error:
        field, problem, remedy = codec.explain(error)
        field = source.name(field) if source else field
        raise InvalidObject(label, field, problem, remedy=remedy) from None


def _duration(wanted: type, value: Any) -> Duration:
    if wanted is not Duration:
        raise AssertionError(wanted)
    if not isinstance(value, str):
        raise ValueError(f"must be a duration such as 30s, not {value!r}")
    return Duration.parse(value)


def _without_null(data: Body) -> Body:
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


def _strange(
    data: Body, wanted: type[Section] = KubeProxyConfiguration, prefix: str = ""
) -> list[str]:
    """Return the paths of fields that do not exist."""
    found = []
    known = _sections(wanted)
    for key, value in data.items():
        inner = known.get(key)
        if key not in known:
            found.append(f"{prefix}{key}")
        elif isinstance(inner, type) and issubclass(inner, Section) and isinstance(value, dict):
            found += _strange(value, inner, f"{prefix}{key}.")
    return found


def _unknown(label: str, path: str, remedy: str = "") -> InvalidObject:
    remedy = remedy or "remove it, or correct its spelling"
    return InvalidObject(label, path, "unknown field", remedy=remedy)


def _now_called(path: str, mode: str) -> str:
    """Return the remedy for a field of v1alpha1 in a file of v1alpha2; empty if it is none."""
    now = configversions.moved(mode).get(path)
    return f"{Version.V1ALPHA2.short} calls it {now}" if now else ""


def _idle(body: Body) -> list[tuple[str, str]]:
    """Return the fields that are set and have no effect, with the reason."""
    return [
        (path, why)
        for path, why in NO_EFFECT.items()
        if not _is_default(path, configversions.get(body, path))
    ]


def _is_default(path: str, value: Any) -> bool:
    if not value or value in _HARMLESS.get(path, ()):
        return True
    if path == "configSyncPeriod":
        return float(Duration.parse(value)) in (0, 900)
    if path == "logging":
        return value.get("format", "text") in ("", "text", "json") and "vmodule" not in value
    if path == "winkernel":
        return not any(value.values())
    return False


def _plain(section: Section) -> Body:
    """Return a section as values of a file, without what is not set."""
    body: Body = {}
    names = zip(section.__struct_encode_fields__, section.__struct_fields__, strict=True)
    for encoded, name in names:
        value = getattr(section, name)
        if isinstance(value, Section):
            value = _plain(value)
        elif isinstance(value, Duration):
            value = value.text
        if value is not None:
            body[encoded] = value
    return body
