"""Which programs run on which host of a whole cluster, with which options. Pure."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from kproxy.client.leaderelection import Terms
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.nodestatus import KUBELET_PORT, Times
from kproxy.controlplane.storage import etcdmember
from kproxy.lab.clusterfile import Profile
from kproxy.lab.site import (
    ADMIN,
    API_ADDRESS,
    API_PORT,
    DNS_ADDRESS,
    DNS_ADDRESS6,
    EDGE,
    SERVICES,
    SERVICES6,
    SiteNode,
)
from kproxy.lab.whole import monitoringunits
from kproxy.lab.whole.goprograms import Program
from kproxy.lab.whole.init import Unit
from kproxy.lab.whole.monitoringtargets import (
    BALANCER_PORT,
    ETCD_PORT,
    MANAGER_PORT,
    SCHEDULER_PORT,
)
from kproxy.lab.whole.monitoringunits import Watcher
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.roles import FOREIGN, Role

KUBELET_RESTART_S = 10.0
"""``RestartSec`` of kubelet.service, as kubeadm's packages ship it."""
BALANCER_RESTART_S = 0.1
"""systemd's ``RestartSec`` where a service does not say any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the cluster's parts wait: in seconds, etcd's in milliseconds."""

    terms: Terms = field(default_factory=Terms)
    etcd_heartbeat_ms: int = etcdmember.HEARTBEAT_MS
    etcd_election_ms: int = etcdmember.ELECTION_MS
    controllers: Mapping[str, str] = field(default_factory=dict)
    """Options of the manager that differ from their defaults."""
    node_lease_renew: float = Times().lease_renew
    node_lease_duration: int = Times().lease_duration
    balancer: Mapping[str, str] = field(default_factory=dict)
    """Options of the load balancer that differ from their defaults."""


TIMINGS = {
    Profile.PRODUCTION: Timing(),
    Profile.LAB: Timing(
        terms=Terms(lease=3.0, renew=2.0, retry=0.5),
        controllers={
            "node-monitor-period": "1s",
            "node-monitor-grace-period": "8s",
            "node-startup-grace-period": "15s",
            "pod-gc-period": "5s",
            "pod-gc-orphan-quarantine": "10s",
        },
        node_lease_renew=2.0,
        node_lease_duration=8,
        balancer={"node-check-period": "2s", "node-check-fall": "2"},
    ),
}


def plan(places: Places) -> dict[str, list[Unit]]:
    """Return the units of every host that has any, in the order in which they are started."""
    site = places.site
    found: dict[str, list[Unit]] = {}
    for host in site.etcd:
        found[host] = [_etcd(places, host)]
    found[EDGE] = [_balancer(places)]
    for host in site.control:
        found[host] = list(_control(places, host))
    for node in site.nodes:
        found[node.name] = [_kubelet(places, node)]
        if site.monitors:
            found[node.name].append(_watcher(places, node.name, monitoringunits.of_node(places)))
    if site.monitors:
        found[ADMIN] = [_watcher(places, ADMIN, monitoringunits.of_admin(places))]
    for host in site.monitors:
        watchers = monitoringunits.of_monitor(places, host)
        found[host] = [_watcher(places, host, one) for one in watchers]
    return found


def log_name(host: str, role: Role) -> str:
    """Return the source of a process's events: the name of its log file, without suffix."""
    return f"{host}-{role}"


def _unit(
    places: Places, host: str, role: Role, command: list[str], restart_s: float | None = None
) -> Unit:
    # What these write are no lines of ours, so they are not to be read as such.
    suffix = ".txt" if role in FOREIGN else ".log"
    log = str(places.files.logs / (log_name(host, role) + suffix))
    return Unit(name=role, command=command, log=log, restart_s=restart_s)


def _module(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"kproxy.{name}", *options]


def _watcher(places: Places, host: str, one: Watcher) -> Unit:
    return _unit(places, host, one.role, one.command)


def _etcd(places: Places, host: str) -> Unit:
    timing = TIMINGS[places.site.file.profile]
    peers = {one: str(places.site.lan_address(one)) for one in places.site.etcd}
    command = etcdmember.command(
        host,
        places.etcd(host),
        peers,
        program=places.program(Program.ETCD),
        metrics_port=ETCD_PORT if places.site.monitors else 0,
        heartbeat_ms=timing.etcd_heartbeat_ms,
        election_ms=timing.etcd_election_ms,
    )
    return _unit(places, host, Role.ETCD, command)


def _control(places: Places, host: str) -> Iterator[Unit]:
    site = places.site
    cidrs = f"{SERVICES},{SERVICES6}" if site.dual else str(SERVICES)
    access = [f"--pki={places.pki}"] if places.secure else ["--insecure"]
    server = _module(
        "controlplane.apiserver",
        f"--bind=0.0.0.0:{API_PORT}",
        f"--advertise-address={site.lan_address(host)}",
        f"--service-cidr={cidrs}",
        f"--store={places.store()}",
        *access,
    )
    yield _unit(places, host, Role.API_SERVER, server)
    timing = TIMINGS[site.file.profile]
    terms = timing.terms
    election = [
        f"--leader-elect-lease-duration={terms.lease:g}s",
        f"--leader-elect-renew-deadline={terms.renew:g}s",
        f"--leader-elect-retry-period={terms.retry:g}s",
    ]
    waits = [f"--{name}={value}" for name, value in timing.controllers.items()]
    for role, user, port, more in (
        (Role.MANAGER, kubeconfigs.CONTROLLER_MANAGER, MANAGER_PORT, waits),
        (Role.SCHEDULER, kubeconfigs.SCHEDULER, SCHEDULER_PORT, []),
    ):
        options = [f"--kubeconfig={places.kubeconfig(user)}", *election, *more]
        if site.monitors:
            options.append(f"--healthz-bind-address=0.0.0.0:{port}")
        yield _unit(places, host, role, _module(f"controlplane.{role}", *options))


def _balancer(places: Places) -> Unit:
    site = places.site
    options = [
        f"--kubeconfig={places.kubeconfig(kubeconfigs.BALANCER)}",
        f"--api-address={API_ADDRESS}",
        *(f"--api-server={site.lan_address(host)}:{API_PORT}" for host in site.control),
        f"--state={places.root / 'balancer.json'}",
    ]
    if site.monitors:
        options.append(f"--health-bind-address=0.0.0.0:{BALANCER_PORT}")
    if site.file.balancer.mode:
        options.append(f"--mode={site.file.balancer.mode}")
    timing = TIMINGS[site.file.profile].balancer
    options += [f"--{name}={value}" for name, value in timing.items()]
    command = _module("lab.balancer", *options)
    return _unit(places, EDGE, Role.BALANCER, command, BALANCER_RESTART_S)


def _kubelet(places: Places, node: SiteNode) -> Unit:
    state_dir = places.root.parent
    timing = TIMINGS[places.site.file.profile]
    options = [
        f"--state-dir={state_dir}",
        f"--site={places.site_file}",
        f"--node={node.name}",
        f"--kubeconfig={places.node_kubeconfig(node.name)}",
        f"--images={places.images}",
        f"--serve-port={KUBELET_PORT}",
        f"--lease-renew={timing.node_lease_renew:g}",
        f"--lease-duration={timing.node_lease_duration}",
    ]
    if places.site.file.dns:
        servers = (DNS_ADDRESS, DNS_ADDRESS6) if places.site.dual else (DNS_ADDRESS,)
        options += [f"--cluster-dns={address}" for address in servers]
    if places.secure:
        options += [
            f"--tls-cert-file={places.pki / f'kubelet-{node.name}.crt'}",
            f"--tls-private-key-file={places.pki / f'kubelet-{node.name}.key'}",
            f"--client-ca-file={places.pki / 'ca.crt'}",
        ]
    command = _module("lab.node", *options)
    return _unit(places, node.name, Role.KUBELET, command, KUBELET_RESTART_S)
