"""The help of ``kproxy proxy``, made from the table of its flags; imported only to show it."""

import textwrap
from typing import Any

import msgspec

from .config import KubeProxyConfiguration, Version, with_defaults
from .configfile import encode_config
from .configversions import get
from .flagtable import GROUPS, IDLE, SHORT, Flag

WIDTH = 98
COLUMN = 44

_DEFAULTS = {"write-config-version": "v1alpha1", "v": "0"}
"""Defaults of flags without a field."""


def help_text() -> str:
    """Return the help: flags by what they are for, each with its text and default."""
    lines = [
        "Usage: kproxy proxy [flags]",
        "",
        "The node proxy: keeps the kernel's rules as Services and EndpointSlices want them.",
        "Flags are kube-proxy's own, where nothing else is said.",
    ]
    for title, flags in GROUPS.items():
        lines += ["", f"{title}:"]
        for flag in flags:
            lines += _lines(flag)
    lines += ["", "Understood, but without effect:"]
    reasons: dict[str, list[str]] = {}
    for flag in IDLE:
        reasons.setdefault(flag.idle, []).append(f"--{flag.name}")
    for why, names in reasons.items():
        lines += textwrap.wrap(f"{', '.join(names)}: {why}", WIDTH, initial_indent="  ",
                               subsequent_indent="      ", break_on_hyphens=False)  # fmt: skip
    return "\n".join([*lines, ""])


def _lines(flag: Flag) -> list[str]:
    kind = "" if flag.kind == "bool" else f" {flag.kind}"
    shorts = "".join(f"-{short}, " for short, name in SHORT.items() if name == flag.name)
    head = f"  {shorts}--{flag.name}{kind}"
    default = _default(flag)
    told = f"{flag.help} (default {default})" if default else flag.help
    first, *more = textwrap.wrap(told, WIDTH - COLUMN, break_on_hyphens=False)
    if len(head) >= COLUMN:
        return [head, *(" " * COLUMN + line for line in (first, *more))]
    return [head.ljust(COLUMN) + first, *(" " * COLUMN + line for line in more)]


def _default(flag: Flag) -> str:
    """Return a default as a user would write it; empty if there is none worth telling."""
    if not flag.path:
        return _DEFAULTS.get(flag.name, "")
    mode = flag.modes[0] if flag.modes else "iptables"
    config = with_defaults(KubeProxyConfiguration(mode=mode))
    value: Any = get(encode_config(config, Version.V1ALPHA2), flag.path)
    if value is None and flag.kind == "bool":
        value = False  # one of ours, which is written only where it is set
    if value in (None, "", []):
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
