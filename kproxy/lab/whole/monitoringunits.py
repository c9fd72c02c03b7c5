"""The programs that watch a lab's cluster, with their options. Pure."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from kproxy.controlplane.access import kubeconfigs
from kproxy.lab.clusterfile import Profile
from kproxy.lab.whole.goprograms import Program
from kproxy.lab.whole.monitoringtargets import (
    ALERTMANAGER_PORT,
    DISCOVERY_PORT,
    GOSSIP_PORT,
    NODE_EXPORTER_PORT,
    PAGER_PORT,
    PROMETHEUS_PORT,
    STATE_PORT,
)
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.roles import Role

COLLECTORS = ("conntrack", "netdev", "netstat", "sockstat", "softnet")
"""Of the node exporter: what tells of a node, not of the machine below all nodes. How much memory
that has left differs in every run, and so would all that is sent after such a number."""

_KEEP = {
    # Blocks of minutes keep the log of what is in no block short: a lab's files are in memory.
    Profile.LAB: {"retention.time": "3h", "min-block-duration": "10m"},
    Profile.PRODUCTION: {"retention.time": "2d", "min-block-duration": "2h"},
}
_RESEND = {Profile.LAB: "5s", Profile.PRODUCTION: "1m"}
_TURNS = {
    # How long the second Alertmanager lets the first one go ahead.
    Profile.LAB: {"peer-timeout": "2s", "gossip-interval": "100ms", "probe-interval": "500ms"},
    Profile.PRODUCTION: {"peer-timeout": "15s"},
}
_DEAD_MAN = {
    Profile.LAB: ("--dead-man-after=10s", "--dead-man-first=60s"),
    Profile.PRODUCTION: ("--dead-man-after=4m", "--dead-man-first=10m"),
}
"""The alert that fires always comes every minute, or every second."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """A program on a host."""

    role: Role
    command: list[str]


def of_monitor(places: Places, host: str) -> Iterator[Watcher]:
    """Yield what runs on one of the hosts that watch."""
    yield Watcher(Role.DISCOVERY, _discovery(places, host))
    yield Watcher(Role.STATE, _state(places))
    yield Watcher(Role.PROMETHEUS, _prometheus(places, host))
    yield Watcher(Role.ALERTMANAGER, _alertmanager(places, host))
    watched = places.site.file.watched_by
    # One at a time may act.
    if watched is not None and watched.remediation and host == places.site.monitors[0]:
        config = f"--config={places.monitoring.remediation}"
        yield Watcher(Role.REMEDIATION, _module("monitoring.remediation", config))


def of_admin(places: Places) -> Watcher:
    """Return what people and the dead man's switch are, beside all that is watched."""
    waits = _DEAD_MAN[places.site.file.profile]
    options = [f"--bind-address=0.0.0.0:{PAGER_PORT}", *waits]
    return Watcher(Role.PAGER, _module("lab.pager", *options))


def of_node(places: Places) -> Watcher:
    """Return what runs on every node."""
    options = [f"--collector.{name}" for name in COLLECTORS]
    command = [
        places.program(Program.NODE_EXPORTER),
        f"--web.listen-address=:{NODE_EXPORTER_PORT}",
        "--collector.disable-defaults",
        "--web.disable-exporter-metrics",
        *options,
    ]
    return Watcher(Role.NODE_EXPORTER, command)


def _discovery(places: Places, host: str) -> list[str]:
    return _module(
        "monitoring.discovery",
        f"--kubeconfig={places.kubeconfig(kubeconfigs.MONITORING)}",
        f"--directory={places.monitoring.targets(host)}",
        f"--metrics-bind-address=0.0.0.0:{DISCOVERY_PORT}",
    )


def _state(places: Places) -> list[str]:
    return _module(
        "monitoring.state",
        f"--kubeconfig={places.kubeconfig(kubeconfigs.MONITORING)}",
        f"--metrics-bind-address=0.0.0.0:{STATE_PORT}",
    )


def _module(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"kproxy.{name}", *options]


def _prometheus(places: Places, host: str) -> list[str]:
    profile = places.site.file.profile
    directory = places.monitoring.host(host)
    keep = _KEEP[profile]
    return [
        places.program(Program.PROMETHEUS),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--web.listen-address=:{PROMETHEUS_PORT}",
        f"--web.external-url=http://{places.site.lan_address(host)}:{PROMETHEUS_PORT}/",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        *(f"--storage.tsdb.{name}={value}" for name, value in keep.items()),
        f"--storage.tsdb.max-block-duration={keep['min-block-duration']}",
        "--storage.tsdb.retention.size=256MB",
        "--storage.tsdb.wal-segment-size=10MB",
        f"--rules.alert.resend-delay={_RESEND[profile]}",
    ]


def _alertmanager(places: Places, host: str) -> list[str]:
    site = places.site
    directory = places.monitoring.host(host)
    own = site.lan_address(host)
    others = [site.lan_address(one) for one in site.monitors if one != host]
    return [
        places.program(Program.ALERTMANAGER),
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=:{ALERTMANAGER_PORT}",
        f"--web.external-url=http://{own}:{ALERTMANAGER_PORT}/",
        f"--cluster.listen-address={own}:{GOSSIP_PORT}",
        f"--cluster.advertise-address={own}:{GOSSIP_PORT}",
        *(f"--cluster.peer={one}:{GOSSIP_PORT}" for one in others),
        *(f"--cluster.{name}={value}" for name, value in _TURNS[site.file.profile].items()),
    ]
