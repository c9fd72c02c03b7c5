"""The command line of ``kproxy proxy``: kube-proxy's flags, by their own names.

A table and a small parser with the rules of kube-proxy's own (Go's pflag): ``--flag=value`` and
``--flag value``; a boolean flag alone is true and takes a value only after ``=``; ``_`` is as good
as ``-``. Neither argparse nor click is used, because importing them would lengthen every restart
of the proxy, which is what this project measures.

The table also gives the help text, and tells which flag sets which field of the configuration.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kproxy.errors import InvalidObject, UsageError

from . import config, configfile
from .configfile import LoadedConfig
from .durations import Duration


class Flag(NamedTuple):
    """One flag. ``path`` is the field of the configuration that it sets, if any."""

    name: str
    kind: str
    """``text``, ``bool``, ``int``, ``float``, ``duration``, ``list`` or ``map``."""
    help: str
    path: str = ""
    honoured: bool = False
    """Whether a flag without a field has an effect."""


FLAGS = (
    Flag("config", "text", "file with a KubeProxyConfiguration", honoured=True),
    Flag("cleanup", "bool", "remove all rules of every mode, then end", honoured=True),
    Flag("help", "bool", "show this help", honoured=True),
    Flag("v", "int", "verbosity of the log; 2 and more: debug lines", honoured=True),
    Flag("master", "text", "URL of the API server; overrides the kubeconfig", honoured=True),
    Flag("kubeconfig", "text", "kubeconfig file", "clientConnection.kubeconfig"),
    Flag("hostname-override", "text", "name of this node", "hostnameOverride"),
    Flag("proxy-mode", "text", "iptables, ipvs or nftables", "mode"),
    Flag("cluster-cidr", "text", "networks of the pods, by comma", "clusterCIDR"),
    Flag("detect-local-mode", "text", "how to tell pods of this node", "detectLocalMode"),
    Flag("healthz-bind-address", "text", "address:port of /healthz", "healthzBindAddress"),
    Flag("metrics-bind-address", "text", "address:port of /metrics", "metricsBindAddress"),
    Flag("config-sync-period", "duration", "how often to list again", "configSyncPeriod"),
    Flag("ipvs-scheduler", "text", "IPVS scheduler", "ipvs.scheduler"),
    Flag("ipvs-min-sync-period", "duration", "min sync interval", "ipvs.minSyncPeriod"),
    Flag("ipvs-sync-period", "duration", "max sync interval", "ipvs.syncPeriod"),
    Flag("ipvs-exclude-cidrs", "list", "IPVS services not to touch", "ipvs.excludeCIDRs"),
    Flag("ipvs-strict-arp", "bool", "answer ARP only for addresses on the link", "ipvs.strictARP"),
    Flag("ipvs-tcp-timeout", "duration", "idle TCP connections", "ipvs.tcpTimeout"),
    Flag("ipvs-tcpfin-timeout", "duration", "TCP after FIN", "ipvs.tcpFinTimeout"),
    Flag("ipvs-udp-timeout", "duration", "UDP flows", "ipvs.udpTimeout"),
    Flag("iptables-min-sync-period", "duration", "min sync interval", "iptables.minSyncPeriod"),
    Flag("iptables-sync-period", "duration", "max sync interval", "iptables.syncPeriod"),
    Flag("masquerade-all", "bool", "masquerade all to ClusterIPs", "iptables.masqueradeAll"),
    Flag("iptables-masquerade-bit", "int", "bit of the masquerade mark", "iptables.masqueradeBit"),
    Flag("iptables-localhost-nodeports", "bool", "", "iptables.localhostNodePorts"),
    Flag("conntrack-tcp-timeout-established", "duration", "", "conntrack.tcpEstablishedTimeout"),
    Flag("conntrack-tcp-timeout-close-wait", "duration", "", "conntrack.tcpCloseWaitTimeout"),
    Flag("conntrack-udp-timeout", "duration", "", "conntrack.udpTimeout"),
    Flag("conntrack-udp-timeout-stream", "duration", "", "conntrack.udpStreamTimeout"),
    Flag("conntrack-max-per-core", "int", "", "conntrack.maxPerCore"),
    Flag("conntrack-min", "int", "", "conntrack.min"),
    Flag("conntrack-tcp-be-liberal", "bool", "", "conntrack.tcpBeLiberal"),
    Flag("nodeport-addresses", "list", "", "nodePortAddresses"),
    Flag("bind-address", "text", "", "bindAddress"),
    Flag("bind-address-hard-fail", "bool", "", "bindAddressHardFail"),
    Flag("pod-bridge-interface", "text", "", "detectLocal.bridgeInterface"),
    Flag("pod-interface-name-prefix", "text", "", "detectLocal.interfaceNamePrefix"),
    Flag("oom-score-adj", "int", "", "oomScoreAdj"),
    Flag("profiling", "bool", "", "enableProfiling"),
    Flag("show-hidden-metrics-for-version", "text", "", "showHiddenMetricsForVersion"),
    Flag("feature-gates", "map", "", "featureGates"),
    Flag("kube-api-content-type", "text", "", "clientConnection.contentType"),
    Flag("kube-api-qps", "float", "", "clientConnection.qps"),
    Flag("kube-api-burst", "int", "", "clientConnection.burst"),
    Flag("write-config-to", "text", ""),
    Flag("init-only", "bool", ""),
    Flag("healthz-port", "int", ""),
    Flag("metrics-port", "int", ""),
    Flag("log-flush-frequency", "duration", ""),
    Flag("logging-format", "text", ""),
    Flag("vmodule", "text", ""),
    Flag("logtostderr", "bool", ""),
    Flag("alsologtostderr", "bool", ""),
)

_BY_NAME = {flag.name: flag for flag in FLAGS}
_SHORT = {"v": "v", "h": "help"}
_REFUSED = ("write-config-to", "init-only")
"""Without these the proxy would do something else than what is asked; so no mere warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a command line says. ``fields`` maps paths in the configuration to their values."""

    config_file: str = ""
    cleanup: bool = False
    help: bool = False
    master: str = ""
    verbosity: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse_flags(arguments: Sequence[str]) -> Options:
    """Read a command line. Raises :class:`UsageError` for a flag or value that cannot be."""
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        flag, value = _take(rest)
        if flag.name in _REFUSED:
            raise UsageError(f"--{flag.name} is not supported by this version")
        given[flag.name] = _value(flag, value)
    fields, warnings = {}, []
    for name, value in given.items():
        flag = _BY_NAME[name]
        if flag.path:
            fields[flag.path] = value
        if not flag.honoured and flag.path not in configfile.HONOURED:
            warnings.append(f"--{name} is not honoured by this version")
    return Options(
        config_file=given.get("config", ""),
        cleanup=given.get("cleanup", False),
        help=given.get("help", False),
        master=given.get("master", ""),
        verbosity=given.get("v", 0),
        fields=fields,
        warnings=tuple(warnings),
    )


def _take(rest: list[str]) -> tuple[Flag, str]:
    """Take one flag with its value off the front of the arguments."""
    word = rest.pop(0)
    if word.startswith("--") and len(word) > 2:
        name, equals, value = word[2:].partition("=")
        name = name.replace("_", "-")
    elif word[:1] == "-" and word[1:2] in _SHORT:
        name, value = _SHORT[word[1]], word[2:].removeprefix("=")
        equals = "=" if len(word) > 2 else ""
    else:
        raise UsageError(f"unknown argument {word!r}", remedy="flags begin with --, see --help")
    flag = _BY_NAME.get(name)
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

    near = difflib.get_close_matches(name, _BY_NAME, n=1)
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


def resolve(options: Options, file: dict[str, Any] | None = None) -> LoadedConfig:
    """Return the configuration that flags and the content of ``--config`` make together.

    As for kube-proxy the file wins, except over ``--hostname-override``. Unlike there, a flag
    still counts for a field that the file does not set; a flag that the file overrules with
    another value is told in the notes.

    Raises :class:`InvalidObject` (the file is wrong) or :class:`UsageError` (a flag is).
    """
    merged: dict[str, Any] = {"apiVersion": config.API_VERSION, "kind": config.KIND}
    if file is not None:
        merged = _copy(file)
    from_flags: set[str] = set()
    overruled = []
    for path, value in options.fields.items():
        section, key = _section(merged, path)
        if section is None:
            continue  # the section is no mapping: decoding will tell
        if section.get(key) in (None, "") or path == "hostnameOverride":
            section[key] = value
            from_flags.add(path)
        elif section[key] != value:
            name = _flag_of(path)
            overruled.append(f"--{name} is ignored: {options.config_file} sets {path}")
    try:
        loaded = configfile.decode_config(merged, options.config_file)
    except InvalidObject as error:
        if error.field in from_flags:
            name = _flag_of(error.field)
            raise UsageError(f"--{name}: {error.problem}", remedy=error.remedy) from None
        raise
    told = {f"{path} is not honoured by this version" for path in from_flags}
    notes = [note for note in loaded.notes if note not in told]
    return loaded._replace(notes=[*options.warnings, *overruled, *notes])


def _copy(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in data.items()}


def _section(data: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """Return the mapping that holds a field, made if absent, and the field's key in it."""
    *parents, key = path.split(".")
    for parent in parents:
        if data.get(parent) is None:
            data[parent] = {}
        data = data[parent]
        if not isinstance(data, dict):
            return None, key
    return data, key


def _flag_of(path: str) -> str:
    return next(flag.name for flag in FLAGS if flag.path == path)


def help_text() -> str:
    """Return the help of ``kproxy proxy``, made from the table."""
    lines = ["Usage: kproxy proxy [flags]", "", "The node proxy. Flags are kube-proxy's own:", ""]
    quiet = []
    for flag in FLAGS:
        if not (flag.honoured or flag.path in configfile.HONOURED):
            quiet.append(f"--{flag.name}")
            continue
        value = "" if flag.kind == "bool" else f" {flag.kind}"
        told = flag.help or f"sets {flag.path}"
        shorts = "".join(f"-{short}, " for short, name in _SHORT.items() if name == flag.name)
        lines.append(f"  {f'{shorts}--{flag.name}{value}':46}{told}")
    lines += ["", "Known, but without effect in this version:", ""]
    line = " "
    for name in quiet:
        if len(line) + len(name) > 95:
            lines.append(line)
            line = " "
        line += f" {name}"
    return "\n".join([*lines, line, ""])
