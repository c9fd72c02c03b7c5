"""The configuration of a kernel as values: what is wanted, what came out, what that means.

Pure: text in, text out. Options are named without ``CONFIG_``; an option that is off is ``n``,
whether a configuration says so or does not mention it.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping

from netns.kernels import base

OFF = "n"
_LINE = re.compile(r"CONFIG_(\w+)=(.+)|# CONFIG_(\w+) is not set")

# What a feature takes, and the options of which each has to be on.
FEATURES: Mapping[base.Feature, tuple[str, ...]] = {
    base.Feature.IPVS: ("IP_VS", "IP_VS_RR", "IP_VS_NFCT"),
    base.Feature.IPTABLES_LEGACY: ("IP_NF_FILTER", "IP_NF_NAT", "IP6_NF_FILTER", "IP6_NF_NAT"),
    base.Feature.IPTABLES_NFT: ("NFT_COMPAT", "NF_TABLES_IPV4", "NF_TABLES_IPV6"),
    base.Feature.NFTABLES: ("NF_TABLES_IPV4", "NF_TABLES_IPV6", "NFT_NAT", "NFT_NUMGEN"),
    base.Feature.NETEM: ("NET_SCH_NETEM",),
    base.Feature.TIME_TRAVEL: ("UML_TIME_TRAVEL_SUPPORT",),
}
# Options that are noted with each kernel, because kernels that differ in them measure differently.
TELLING = ("HZ", "HIGH_RES_TIMERS", "IP_VS_TAB_BITS", "PREEMPT_NONE", "PREEMPT", "DEBUG_KERNEL")


def parse(text: str) -> dict[str, str]:
    """Return the options that a configuration, or a fragment of one, sets; other lines are not.

    Raises ValueError, with the line, for a line that is neither an option, nor a comment, nor
    empty, and for an option that is set twice.
    """
    options: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = _LINE.fullmatch(line.strip())
        if found is None:
            if line.strip() and not line.lstrip().startswith("#"):
                raise ValueError(f"line {number} is no option: {line!r}")
            continue
        name = found[1] or found[3]
        if name in options:
            raise ValueError(f"line {number} sets CONFIG_{name} again")
        options[name] = found[2] or OFF
    return options


def render(options: Mapping[str, str]) -> str:
    """Return the options as a configuration has them."""
    return "".join(f"{line(name, value)}\n" for name, value in options.items())


def line(name: str, value: str) -> str:
    """Return the line of one option."""
    return f"# CONFIG_{name} is not set" if value == OFF else f"CONFIG_{name}={value}"


def merge(defaults: Mapping[str, str], fragment: Mapping[str, str]) -> dict[str, str]:
    """Return the defaults with what the fragment says instead.

    The fragment comes last: of options that exclude each other the kernel takes the last.
    """
    kept = {name: value for name, value in defaults.items() if name not in fragment}
    return kept | dict(fragment)


def unmet(fragment: Mapping[str, str], result: Mapping[str, str]) -> list[str]:
    """Return the options of the fragment, as lines, that a configuration does not have."""
    return [
        line(name, value) for name, value in fragment.items() if result.get(name, OFF) != value
    ]


def digest(fragment: Mapping[str, str]) -> str:
    """Return a hash of what the fragment demands; comments and order do not count."""
    text = render(dict(sorted(fragment.items())))
    return hashlib.sha256(text.encode()).hexdigest()


def features(options: Mapping[str, str]) -> tuple[base.Feature, ...]:
    """Return the features of a kernel with this configuration."""
    return tuple(feature for feature, needed in FEATURES.items() if _all_on(needed, options))


def _all_on(names: Iterable[str], options: Mapping[str, str]) -> bool:
    return all(options.get(name, OFF) in ("y", "m") for name in names)
