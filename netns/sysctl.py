"""Kernel settings of a network namespace, written through ``/proc/sys`` from inside it.

``/proc/sys/net`` shows the settings of the *reading thread's* namespace, so these functions are to
be called within :func:`netns.namespace.entered`.
"""

from collections.abc import Mapping
from pathlib import Path

from netns.errors import NetnsError

# What every host starts with, whatever the machine around it is set to: the kernel copies the
# IPv4 settings of the initial namespace into each new one. No router, no reverse path filter, and
# nothing that takes its own time or sends packets of its own (duplicate address detection, router
# advertisements and solicitations). Reports of multicast listeners cannot be turned off; at an
# interval of 1 ms they are over some 20 ms after the interface is up, instead of after 2 s.
BASELINE: Mapping[str, str] = {
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.autoconf": "0",
    "net.ipv6.conf.default.router_solicitations": "0",
    "net.ipv6.conf.default.mldv1_unsolicited_report_interval": "1",
    "net.ipv6.conf.default.mldv2_unsolicited_report_interval": "1",
}

# A bridge only forwards: without IPv6 it does not announce itself by multicast.
SWITCH: Mapping[str, str] = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}


def path_of(key: str) -> Path:
    """The file of a key. As with sysctl(8): dots, or slashes where an interface name has dots."""
    return Path("/proc/sys", key if "/" in key else key.replace(".", "/"))


def write_existing(settings: Mapping[str, str]) -> dict[str, str]:
    """Write those that exist in this kernel and namespace; return the others."""
    return {key: value for key, value in settings.items() if not _write(key, value)}


def write_all(settings: Mapping[str, str], host: str) -> None:
    """Write all. Raises :class:`NetnsError` naming the host and the key that is not there."""
    for key in write_existing(settings):
        remedy = "check the name; some appear only when their kernel module is loaded"
        raise NetnsError(f"host {host}: sysctls: there is no {key} here", remedy=remedy)


def _write(key: str, value: str) -> bool:
    try:
        path_of(key).write_text(value)
    except FileNotFoundError:
        return False
    except OSError as problem:
        raise NetnsError(f"sysctl {key} = {value}: {problem.strerror}") from problem
    return True
