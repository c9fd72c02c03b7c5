"""The configuration of remediation: a YAML file whose every field is told of in the default one.

That is ``deploy/monitoring/remediation.yaml``.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from kproxy.api import codec, yamltext
from kproxy.api.durations import Duration
from kproxy.errors import InvalidObject, UsageError

from .targets import Limits

PORT = 9095
LOOK_AGAIN_LEAST_S = 0.2
"""A look may start a program on the node: not more often than so, also in a lab."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of the file's sections: an unknown field is a mistake."""


class Tls(_Part, frozen=True, kw_only=True, rename="camel"):
    """The server's certificate; both empty: plain HTTP."""

    cert_file: str = ""
    key_file: str = ""


class Journal(_Part, frozen=True, kw_only=True, rename="camel"):
    """Where the journal lies, and how much of it is kept."""

    directory: str = "/var/lib/kproxy/remediation"
    file_bytes: int = 8 << 20
    files: int = 8


class Access(_Part, frozen=True, kw_only=True, rename="camel"):
    """How a node is reached: a name of ``actions.catalog.NODE_ACCESS``, and options for it."""

    kind: str = "exec"
    options: dict[str, str] = {}


class Breaker(_Part, frozen=True, kw_only=True, rename="camel"):
    """After ``failures`` runs in a row that did not help, an action rests for ``open_for``."""

    failures: int = 3
    open_for: Duration = Duration(1800.0)


class Guards(_Part, frozen=True, kw_only=True, rename="camel"):
    """What holds for all actions."""

    max_age: Duration = Duration(3600.0)
    """An alert that began longer ago is for a human."""
    patience: Duration = Duration(900.0)
    """So long an alert waits until it may be acted on; then it is for a human."""
    queue: int = 256
    unwell_share: float = 0.34
    """No repair while a larger share of the nodes (but more than one) is not well."""
    recheck: Duration = Duration(10.0)
    """First wait after a check that says no; doubled each time, up to ``recheck_most``."""
    recheck_most: Duration = Duration(120.0)
    breaker: Breaker = Breaker()


class ActionSettings(_Part, frozen=True, kw_only=True, rename="camel"):
    """An action that may run. What is absent is as the action says itself (see ``Limits``)."""

    dry_run: bool = False
    runs: int | None = None
    period: Duration | None = None
    cool_down: Duration | None = None
    check_within: Duration | None = None
    run_within: Duration | None = None
    verify_within: Duration | None = None
    verify_every: Duration | None = None

    def over(self, own: Limits) -> Limits:
        """Return an action's own limits, but for what this says."""
        said = {name: getattr(self, name) for name in Limits.__dataclass_fields__}
        given = {name: value for name, value in said.items() if value is not None}
        return dataclasses.replace(own, **given)


class UserScripts(_Part, frozen=True, kw_only=True, rename="camel"):
    """The directory of the users' own actions; empty: there are none."""

    directory: str = ""
    user: str = "nobody"
    """Runs scripts whose manifest names nobody else."""


class Settings(_Part, frozen=True, kw_only=True, rename="camel"):
    """The whole file. File names in it are absolute, or relative to its directory."""

    listen: str = f"127.0.0.1:{PORT}"
    token_file: str = ""
    tls: Tls = Tls()
    connections: int = 128
    body_bytes: int = 4 << 20
    request_within: Duration = Duration(10.0)
    journal: Journal = Journal()
    kubeconfig: str = ""
    """Empty: a pod's service account, if there is one."""
    node_access: Access = Access()
    dry_run: bool = False
    divide: float = 1.0
    """A lab has production's waits divided by this: those of ``guards`` and between runs."""
    guards: Guards = Guards()
    actions: dict[str, ActionSettings] = {}
    """Only actions that are named here run."""
    user_scripts: UserScripts = UserScripts()
    options: dict[str, str] = {}

    def limits(self, name: str, own: Limits) -> Limits:
        """Return an action's limits: its own, where the file says nothing else, divided."""
        found = self.actions.get(name, ActionSettings()).over(own)
        waits = {field: getattr(found, field) / self.divide for field in _WAITS}
        waits["verify_every"] = max(waits["verify_every"], LOOK_AGAIN_LEAST_S)
        return dataclasses.replace(found, **waits)


_WAITS = ("period", "cool_down", "verify_every")
"""What ``divide`` concerns of an action's limits: not how long work may take."""


def load(path: Path) -> Settings:
    """Read a configuration file.

    Raises :class:`UsageError` if it cannot be read, :class:`InvalidObject` if it is wrong.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}", remedy="name a file") from None
    return parse(text, str(path), path.absolute().parent)


def parse(text: str, where: str, directory: Path) -> Settings:
    """Read a configuration; file names are relative to ``directory``. Raises InvalidObject."""
    raw = yamltext.parse_one(text, where)
    try:
        settings = _convert(raw)
    except msgspec.ValidationError as error:
        field, problem, remedy = codec.explain(error)
        raise InvalidObject(where, _named(field, raw), problem, remedy=remedy) from None
    for field, problem, remedy in _problems(settings):
        raise InvalidObject(where, field, problem, remedy=remedy)
    guards = _divided(settings.guards, settings.divide)
    return _absolute(msgspec.structs.replace(settings, guards=guards), directory)


def _convert(raw: Any) -> Settings:
    return msgspec.convert(raw, Settings, dec_hook=decode_duration)


def _named(field: str, raw: Any) -> str:
    """Return a field's path with the name of the action or option, for which msgspec has [...]."""
    before, mark, after = field.partition("[...]")
    if not mark:
        return field
    parts, entries = before.split("."), raw
    for part in parts:
        entries = entries[part]
    for name, value in entries.items():
        alone: Any = {name: value}
        for part in reversed(parts):
            alone = {part: alone}
        try:
            _convert(alone)
        except msgspec.ValidationError:
            return f"{before}.{name}{after}"
    return field


def decode_duration(wanted: type, value: Any) -> Any:
    """Read a duration; for ``msgspec.convert``."""
    if wanted is not Duration:
        raise AssertionError(wanted)
    if not isinstance(value, str):
        raise ValueError(f"must be a duration such as 30s, not {value!r}")
    return Duration.parse(value)


def _problems(settings: Settings) -> Iterator[tuple[str, str, str]]:
    guards, tls = settings.guards, settings.tls
    counts: dict[str, int] = {
        "connections": settings.connections,
        "bodyBytes": settings.body_bytes,
        "journal.fileBytes": settings.journal.file_bytes,
        "guards.queue": guards.queue,
        "guards.breaker.failures": guards.breaker.failures,
    }
    for name, one in settings.actions.items():
        if one.runs is not None:
            counts[f"actions.{name}.runs"] = one.runs
    for field, count in counts.items():
        if count < 1:
            yield field, "is less than 1", "give a positive number"
    if settings.journal.files < 2:
        yield "journal.files", "is less than 2", "keep the file before, at least"
    if not 0 < settings.divide < math.inf:
        yield "divide", "is no number above 0", "write 1 to divide nothing"
    if not 0 < guards.unwell_share <= 1:
        yield "guards.unwellShare", "is no share above 0, up to 1", "write 0.34 for a third"
    if bool(tls.cert_file) != bool(tls.key_file):
        missing = "keyFile" if tls.cert_file else "certFile"
        yield f"tls.{missing}", "is missing beside its other half", "give both, or none"
    for field, value in _durations(settings):
        if value <= 0:
            yield field, "is not longer than 0s", "give a positive duration"


def _durations(part: Any, prefix: str = "") -> Iterator[tuple[str, Duration]]:
    if isinstance(part, Mapping):
        named = list(part.items())
    else:
        names = zip(part.__struct_encode_fields__, part.__struct_fields__, strict=True)
        named = [(encoded, getattr(part, name)) for encoded, name in names]
    for name, value in named:
        if isinstance(value, Duration):
            yield f"{prefix}{name}", value
        elif isinstance(value, msgspec.Struct | Mapping):
            yield from _durations(value, f"{prefix}{name}.")


def _absolute(settings: Settings, directory: Path) -> Settings:
    def place(text: str) -> str:
        return str(directory / text) if text else ""

    journal, scripts, tls = settings.journal, settings.user_scripts, settings.tls
    replace = msgspec.structs.replace
    return replace(
        settings,
        token_file=place(settings.token_file),
        kubeconfig=place(settings.kubeconfig),
        journal=replace(journal, directory=place(journal.directory)),
        user_scripts=replace(scripts, directory=place(scripts.directory)),
        tls=replace(tls, cert_file=place(tls.cert_file), key_file=place(tls.key_file)),
    )


def _divided(part: Any, by: float) -> Any:
    changed: dict[str, Any] = {}
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, Duration):
            changed[name] = Duration(value / by)
        elif isinstance(value, msgspec.Struct):
            changed[name] = _divided(value, by)
    return msgspec.structs.replace(part, **changed)
