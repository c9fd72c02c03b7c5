"""The YAML file that describes a lab's cluster: ``kproxy lab up -f lab.yaml``.

Everything has a default, so an empty file is a cluster. ::

    name: demo                      # of the lab
    mode: nftables                  # of the proxies: ipvs, iptables, nftables
    families: [IPv4, IPv6]          # default: IPv4 only
    nodes: 3                        # or a list: [{name: a, labels: {disk: ssd}, taints: [...]}]
    controlPlane:
      replicas: 3                   # hosts with an API server, a manager and a scheduler each
      store: etcd                   # or sqlite
      etcdMembers: 3
      security: tls                 # or none
    balancer: {mode: iptables}      # of the load balancer; default: the best of the kernel's
    outside: 1                      # hosts outside the cluster
    dns: true
    monitoring: true                # Prometheus, Alertmanager; or {remediation: false}
    profile: production             # or lab: short leases and periods
    links: {default: {delay: 0.1ms}, node2: {loss: 1%}}
    uplinks: {node1: eth1, client: {nic: eth2, as: macvlan}}  # cards: docs/hardware.md
    images: {nginx: {image: web}}   # or {command: [python3, shop.py]}
    proxy: {ipvs: {scheduler: sh}}  # fields of KubeProxyConfiguration
    manifests: [shop.yaml]
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from kproxy.api import codec, yamltext
from kproxy.controlplane.images import Images
from kproxy.errors import InvalidObject, UsageError
from kproxy.lab import uplinks
from kproxy.lab.modes import MODES
from netns.errors import TopologyError
from netns.impairment import Impairment
from netns.uplink import Uplink

MAX_NODES = 50
MAX_CONTROL = 7
MAX_OUTSIDE = 8
ETCD_SIZES = (1, 3, 5, 7)
FAMILIES = ("IPv4", "IPv6")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
NAME_REMEDY = "use at most 20 of a-z, 0-9 and -"
DEFAULT_LINK = "default"


class Store(StrEnum):
    """Where the API servers keep the objects."""

    SQLITE = "sqlite"
    ETCD = "etcd"


class Security(StrEnum):
    """Whether API servers and kubelets ask who somebody is."""

    TLS = "tls"
    NONE = "none"


class Profile(StrEnum):
    """How long leases, grace periods and back-offs are."""

    PRODUCTION = "production"
    LAB = "lab"


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of the file's sections: an unknown field is a mistake."""


class NodeFile(_Part, frozen=True, kw_only=True, rename="camel"):
    """One node. ``name`` empty: ``node`` and its number, from 1."""

    name: str = ""
    labels: dict[str, str] = {}
    taints: list[dict[str, str]] = []
    zone: str = ""


class ControlPlane(_Part, frozen=True, kw_only=True, rename="camel"):
    """What the cluster is run by."""

    replicas: int = 1
    store: Store = Store.SQLITE
    etcd_members: int = 3
    security: Security = Security.TLS


class Balancer(_Part, frozen=True, kw_only=True, rename="camel"):
    """The load balancer before the cluster. ``mode`` empty: the first that the kernel can do."""

    mode: str = ""


class Monitoring(_Part, frozen=True, kw_only=True, rename="camel"):
    """Prometheus, Alertmanager and what belongs to them: docs/monitoring.md."""

    remediation: bool = True
    """Whether somebody acts on alerts; without it people are told only."""


class Image(_Part, frozen=True, kw_only=True, rename="camel"):
    """What an image runs: a built-in one, or a command; :mod:`kproxy.controlplane.images`."""

    image: str = ""
    command: list[str] = []
    args: list[str] = []
    env: dict[str, str] = {}
    instead: bool = False


class ClusterFile(_Part, frozen=True, kw_only=True, rename="camel"):
    """The whole file; see the module."""

    name: str = "kproxy"
    mode: str = "ipvs"
    families: list[str] = msgspec.field(default_factory=lambda: ["IPv4"])
    nodes: int | list[NodeFile] = 2
    control_plane: ControlPlane = ControlPlane()
    balancer: Balancer = Balancer()
    outside: int = 1
    dns: bool = True
    monitoring: bool | Monitoring = False
    profile: Profile = Profile.PRODUCTION
    links: dict[str, dict[str, str | int | float]] = {}
    uplinks: dict[str, str | dict[str, str]] = {}
    images: dict[str, Image] = {}
    proxy: dict[str, Any] = {}
    manifests: list[str] = []

    def each_node(self) -> list[NodeFile]:
        """Return the nodes, each with a name."""
        listed = self.nodes if isinstance(self.nodes, list) else [NodeFile()] * self.nodes
        return [
            msgspec.structs.replace(one, name=one.name or f"node{number}")
            for number, one in enumerate(listed, start=1)
        ]

    @property
    def watched_by(self) -> Monitoring | None:
        """What watches the cluster; None: nothing does."""
        if isinstance(self.monitoring, Monitoring):
            return self.monitoring
        return Monitoring() if self.monitoring else None

    def cards(self, where: str) -> dict[str, Uplink]:
        """Return the cards that hosts are on. Raises :class:`InvalidObject`."""
        return uplinks.parse(self.uplinks, where)

    def link(self, host: str) -> dict[str, str | int | float]:
        """Return what is said of the link of a host: of its own, or of all; empty: nothing."""
        return self.links.get(host, self.links.get(DEFAULT_LINK, {}))

    def impairment(self, host: str) -> Impairment | None:
        """Return what the link of a host does to packets: its own, or the default."""
        found = self.link(host)
        return Impairment.parse(dict(found), f"links.{host}") if found else None


def load(path: Path) -> ClusterFile:
    """Read a file. Raises :class:`UsageError`, or :class:`InvalidObject` naming the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from None
    return parse(text, path.name)


def parse(text: str, where: str) -> ClusterFile:
    """Return what a text says; ``where`` names it in errors. Raises :class:`InvalidObject`."""
    data = yamltext.parse_one(text, where) if text.strip() else {}
    try:
        found = msgspec.convert(data, ClusterFile)
    except msgspec.ValidationError as error:
        field, problem, remedy = codec.explain(error)
        raise InvalidObject(where, field, problem, remedy=remedy) from None
    check(found, where)
    return found


def check(file: ClusterFile, where: str) -> None:
    """Raise :class:`InvalidObject` for the first thing that cannot be."""

    def fault(field: str, problem: str, remedy: str) -> InvalidObject:
        return InvalidObject(where, field, problem, remedy=remedy)

    if not NAME.fullmatch(file.name):
        raise fault("name", f"{file.name!r} is no name", NAME_REMEDY)
    for field, mode in (("mode", file.mode), ("balancer.mode", file.balancer.mode or file.mode)):
        if mode not in MODES:
            raise fault(field, f"there is no mode {mode!r}", f"use {', '.join(MODES)}")
    if not file.families or len(set(file.families) & set(FAMILIES)) != len(file.families):
        raise fault("families", f"{file.families!r}", "list IPv4, IPv6 or both, each once")
    _check_numbers(file, where)
    _check_names(file, where)
    try:
        Images.parse(msgspec.to_builtins(file.images))
    except UsageError as error:
        raise fault("images", error.message.removeprefix("images: "), error.remedy) from None
    for host in file.links:
        try:
            file.impairment(host)
        except TopologyError as error:
            field, problem = f"links.{host}.{error.field}", error.problem
            raise fault(field, problem, error.remedy) from None


def _check_numbers(file: ClusterFile, where: str) -> None:
    for field, value, least, most in (
        ("controlPlane.replicas", file.control_plane.replicas, 1, MAX_CONTROL),
        ("outside", file.outside, 0, MAX_OUTSIDE),
        ("nodes", len(file.each_node()), 1, MAX_NODES),
    ):
        if not least <= value <= most:
            remedy = f"use {least} to {most}"
            raise InvalidObject(where, field, f"{value} is out of range", remedy=remedy)
    members = file.control_plane.etcd_members
    if members not in ETCD_SIZES:
        field, remedy = "controlPlane.etcdMembers", "use 1, 3, 5 or 7"
        raise InvalidObject(where, field, f"{members} members", remedy=remedy)


def _check_names(file: ClusterFile, where: str) -> None:
    names = [node.name for node in file.each_node()]
    for index, name in enumerate(names):
        field = f"nodes[{index}].name"
        if not NAME.fullmatch(name):
            remedy = NAME_REMEDY
            raise InvalidObject(where, field, f"{name!r} is no name", remedy=remedy)
        if name in names[:index]:
            problem = f"there are two {name!r}"
            raise InvalidObject(where, field, problem, remedy="rename one of them")
