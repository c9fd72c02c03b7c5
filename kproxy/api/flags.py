"""The command line of ``kproxy proxy``: kube-proxy's flags, by their own names.

A small parser with the rules of kube-proxy's own (Go's pflag): ``--flag=value`` and ``--flag
value``; a boolean flag alone is true and takes a value only after ``=``; ``_`` is as good as
``-``. Neither argparse nor click is used, because importing them would lengthen every restart of
the proxy, which is what this project measures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kproxy.errors import InvalidObject, UsageError

from . import addresses, configfile, configversions
from .config import ANYWHERE, KIND, Version
from .configfile import LoadedConfig, Source
from .durations import Duration
from .flagtable import BY_NAME, SHORT, Flag


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line says. ``fields`` maps flags to the values of their fields."""

    config_file: str = ""
    cleanup: bool = False
    cleanup_except: str = ""
    init_only: bool = False
    help: bool = False
    version: bool = False
    write_config_to: str = ""
    write_config_version: Version = Version.V1ALPHA1
    master: str = ""
    verbosity: int = 0
    fields: Mapping[str, Any] = msgspec.field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_flags(arguments: Sequence[str]) -> Options:
    """Read a command line. Raises :class:`UsageError` for a flag or value that cannot be."""
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag, value = _take(rest)
        given[flag.name] = _value(flag, value)
    if given.get("cleanup-except") == "":
        # Whoever has a variable that is empty wants no proxy.
        raise UsageError("--cleanup-except lacks its mode", remedy="write --cleanup-except=MODE")
    _use_deprecated(given)
    return Options(
        config_file=given.get("config", ""),
        cleanup=given.get("cleanup", False),
        cleanup_except=given.get("cleanup-except", ""),
        init_only=given.get("init-only", False),
        help=given.get("help", False),
        version=given.get("version", False),
        write_config_to=given.get("write-config-to", ""),
        write_config_version=_version(given.get("write-config-version", "v1alpha1")),
        master=given.get("master", ""),
        verbosity=given.get("v", 0),
        fields={name: value for name, value in given.items() if BY_NAME[name].path},
        warnings=tuple(
            f"--{name} has no effect: {BY_NAME[name].idle}" for name in given if BY_NAME[name].idle
        ),
    )


def _take(rest: list[str]) -> tuple[Flag, str]:
    """Take one flag with its value off the front of the arguments."""
    word = rest.pop(0)
    if word.startswith("--") and len(word) > 2:
        name, equals, value = word[2:].partition("=")
        name = name.replace("_", "-")
    elif word[:1] == "-" and word[1:2] in SHORT:
        name, value = SHORT[word[1]], word[2:].removeprefix("=")
        equals = "=" if len(word) > 2 else ""
    else:
        raise UsageError(f"unknown argument {word!r}", remedy="flags begin with --, see --help")
    flag = BY_NAME.get(name)
    if flag is None:
        raise _unknown(name)
    if equals:
        return flag, value
    if flag.kind == "bool":
        return flag, "true"
    if not rest:
        raise UsageError(f"--{name} lacks its value", remedy=f"write --{name}=VALUE")
    return flag, rest.pop(0)


def _unknown(name: str) -> UsageError:
    import difflib

    near = difflib.get_close_matches(name, BY_NAME, n=1)
    remedy = f"did you mean --{near[0]}?" if near else "see --help for the flags"
    return UsageError(f"unknown flag --{name}", remedy=remedy)


_TRUTHS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
_WANTED = {"bool": "true or false", "int": "a whole number", "float": "a number"}


def _value(flag: Flag, text: str) -> Any:
    """Return a flag's value as the configuration wants it. Raises :class:`UsageError`."""
    try:
        match flag.kind:
            case "bool":
                return _TRUTHS[text.lower()]
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "duration":
                Duration.parse(text)
            case "list":
                return [part.strip() for part in text.split(",") if part.strip()]
            case "map":
                pairs = (part.partition("=") for part in text.split(",") if part.strip())
                return {name.strip(): _TRUTHS[value.strip().lower()] for name, _, value in pairs}
    except (ValueError, KeyError):
        wanted = _WANTED.get(flag.kind)
        wanted = wanted or ("Name=true,…" if flag.kind == "map" else "a duration such as 30s")
        raise UsageError(f"--{flag.name}: {text!r} is not {wanted}") from None
    return text


def _version(text: str) -> Version:
    found = [version for version in Version if text in (version.value, version.short)]
    if not found:
        known = " or ".join(version.short for version in Version)
        raise UsageError(
            f"--write-config-version: unknown version {text!r}", remedy=f"use {known}"
        )
    return found[0]


def _use_deprecated(given: dict[str, Any]) -> None:
    """Turn ports alone into addresses, none into port 0, and the node's address into a list."""
    for name, host in (("healthz", ANYWHERE), ("metrics", "127.0.0.1")):
        port = given.pop(f"{name}-port", None)
        if port is None and given.get(f"{name}-bind-address") == "":
            port = 0  # as for kube-proxy an empty flag disables what an absent one does not
        address = given.get(f"{name}-bind-address", "")
        if port is not None and (not address or addresses.parse_address(address)):
            given[f"{name}-bind-address"] = addresses.with_port(address or host, port)
    if address := given.pop("bind-address", ""):
        parsed = addresses.parse_address(address)
        if not parsed or addresses.special_use(parsed.text) != "unspecified":
            given["bind-address"] = [address]


def resolve(options: Options, file: dict[str, Any] | None = None) -> LoadedConfig:
    """Return the configuration that flags and the content of ``--config`` make together.

    As for kube-proxy the file wins, except over ``--hostname-override``. Unlike there, a flag
    still counts for a field that the file does not set; a flag that the file overrules with
    another value is told in the notes.

    Raises :class:`InvalidObject` (the file is wrong) or :class:`UsageError` (a flag is).
    """
    content = file or {"apiVersion": Version.V1ALPHA1.value, "kind": KIND}
    asked = options.fields.get("proxy-mode", "")
    source = configfile.open_source(content, options.config_file, asked)
    merged = _Merged(source, options)
    for name, value in options.fields.items():
        merged.add(BY_NAME[name], value)
    try:
        loaded = configfile.decode(source)
    except InvalidObject as error:
        if flag := merged.culprit(error.field):
            raise UsageError(f"--{flag}: {error.problem}", remedy=error.remedy) from None
        raise
    idle = tuple(f"{source.name(path)} has no effect" for path in merged.fields)
    notes = [note for note in loaded.notes if not note.startswith(idle or ("\n",))]
    return loaded._replace(notes=[*options.warnings, *merged.notes, *notes])


class _Merged:
    """The content of a file with flags put in where it says nothing."""

    def __init__(self, source: Source, options: Options) -> None:
        self._source = source
        self._file = options.config_file
        self.fields: dict[str, str] = {}
        """Which flag has set a field of the configuration."""
        self.notes: list[str] = []

    def add(self, flag: Flag, value: Any) -> None:
        source = self._source
        if flag.modes and (source.mode or "iptables") not in flag.modes:
            self.notes.append(
                f"--{flag.name} has no effect: the mode is {source.mode or 'iptables'}"
            )
            return
        for path in filter(None, (flag.path, flag.also)):
            found = configversions.get(source.body, path)
            if found not in (None, "") and flag.name != "hostname-override":
                if found != value and path == flag.path:
                    field = source.name(path)
                    self.notes.append(f"--{flag.name} is ignored: {self._file} sets {field}")
            elif configversions.put(source.body, path, value):
                self.fields[path] = flag.name
            # else the section is no mapping: decoding will tell

    def culprit(self, field: str) -> str:
        """Return the flag that has set a field, by the field's name in the file; else nothing."""
        bare = field.partition("[")[0]
        for path, flag in self.fields.items():
            if self._source.name(path) in (field, bare):
                return flag
        return ""
