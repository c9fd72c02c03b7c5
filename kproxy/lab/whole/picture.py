"""A whole cluster at a moment: hosts, control plane, nodes, pods, services. Values, as in JSON."""

import platform
from importlib import metadata

import msgspec

from kproxy import errors
from kproxy.api import core, discovery, kinds
from kproxy.lab import carrier, podviews
from kproxy.lab.site import ADMIN, EDGE
from kproxy.lab.whole.api import Object
from kproxy.lab.whole.cluster import UPLINK, WholeCluster
from kproxy.lab.whole.monitors import Watch
from kproxy.lab.whole.roles import ELECTED, Role
from netns.errors import NetnsError


class HostPicture(msgspec.Struct, kw_only=True, rename="camel"):
    """A host. ``kind``: edge, admin, control, etcd, monitor, node, outside."""

    name: str
    kind: str
    addresses: list[str]
    link: str = ""
    """What its link does to packets, in words; empty: nothing."""
    plugged: bool = True


class ProcessPicture(msgspec.Struct, kw_only=True, rename="camel"):
    """A process of the cluster itself. ``pid`` 0: it should run, and does not."""

    host: str
    role: str
    pid: int = 0
    starts: int = 0
    leads: bool = False


class NodePicture(msgspec.Struct, kw_only=True, rename="camel"):
    """A Node object."""

    name: str
    ready: bool
    zone: str = ""
    taints: list[str] = []
    pods: int = 0


class PodPicture(msgspec.Struct, kw_only=True, rename="camel"):
    """A Pod object; ``phase`` is what kubectl calls its status."""

    namespace: str
    name: str
    node: str
    phase: str
    ready: int
    containers: int
    restarts: int
    addresses: list[str]


class ServicePicture(msgspec.Struct, kw_only=True, rename="camel"):
    """A Service, with the number of endpoints that are ready."""

    namespace: str
    name: str
    type: str
    addresses: list[str]
    ports: list[str]
    endpoints: int


class Picture(msgspec.Struct, kw_only=True, rename="camel"):
    """Everything. ``api``: why the API does not answer; then only processes are known."""

    name: str
    mode: str
    families: list[str]
    store: str
    security: str
    profile: str
    api_url: str
    api: str = ""
    hosts: list[HostPicture] = []
    control_plane: list[ProcessPicture] = []
    nodes: list[NodePicture] = []
    pods: list[PodPicture] = []
    services: list[ServicePicture] = []
    monitors: list[Watch] = []
    """What each of the hosts that watch sees; empty: nothing is watched."""
    versions: dict[str, str] = {}


def take(cluster: WholeCluster) -> Picture:
    """Look at a cluster. What does not answer is left out, and told in ``api``."""
    file = cluster.site.file
    picture = Picture(
        name=file.name,
        mode=file.mode,
        families=list(file.families),
        store=str(file.control_plane.store),
        security=str(file.control_plane.security),
        profile=str(file.profile),
        api_url=cluster.site.api_url,
        hosts=_hosts(cluster),
        versions={
            "kproxy": metadata.version("kproxy"),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
    )
    lead = dict.fromkeys(ELECTED, "")
    try:
        _look(cluster, picture)
        lead = {role: cluster.leader(role) for role in ELECTED}
    except errors.KproxyError as error:
        picture.api = str(error)
        lead[Role.ETCD] = cluster.leader(Role.ETCD)
    picture.control_plane = _processes(cluster, lead)
    picture.monitors = [cluster.monitors.watch(host) for host in cluster.site.monitors]
    return picture


def _hosts(cluster: WholeCluster) -> list[HostPicture]:
    site = cluster.site
    groups = {
        "edge": (EDGE,),
        "admin": (ADMIN,),
        "control": site.control,
        "etcd": site.etcd,
        "monitor": site.monitors,
        "node": tuple(node.name for node in site.nodes),
        "outside": site.outside,
    }
    found = []
    for kind, names in groups.items():
        for name in names:
            try:
                host = cluster.lab.host(name)
            except NetnsError:
                continue
            own = [one for one in host.interfaces if one.name in ("eth0", "eth1")]
            addresses = [str(address.ip) for one in own for address in one.addresses]
            link = site.file.link(name)
            found.append(
                HostPicture(
                    name=name,
                    kind=kind,
                    addresses=addresses,
                    link=", ".join(f"{key} {value}" for key, value in link.items()),
                    plugged=host.call(carrier.is_up, UPLINK),
                )
            )
    return found


def _processes(cluster: WholeCluster, lead: dict[Role, str]) -> list[ProcessPicture]:
    running = {(one.host, one.role): one for one in cluster.processes.all()}
    found = []
    for host, role in cluster.wanted():
        one = running.get((host, role))
        leads = one is not None and lead.get(role) == host
        pid, starts = (one.pid, one.starts) if one else (0, 0)
        found.append(ProcessPicture(host=host, role=role, pid=pid, starts=starts, leads=leads))
    return found


def _look(cluster: WholeCluster, picture: Picture) -> None:
    """Add what the API says. Raises KproxyError."""
    api = cluster.api
    version = msgspec.json.decode(api.request("GET", "/version"))
    picture.versions["kubernetes"] = str(version.get("gitVersion", ""))
    pods = api.pods()
    counts: dict[str, int] = {}
    for pod in pods:
        where = pod["spec"].get("nodeName", "")
        counts[where] = counts.get(where, 0) + 1
    picture.nodes = [_node(one, counts) for one in api.objects(kinds.NODE)]
    picture.pods = [_pod(one) for one in pods]
    ready = _endpoints(api.objects(kinds.ENDPOINT_SLICE))
    picture.services = [_service(one, ready) for one in api.objects(kinds.SERVICE)]


def _node(node: Object, counts: dict[str, int]) -> NodePicture:
    meta, spec = node["metadata"], node.get("spec") or {}
    return NodePicture(
        name=meta["name"],
        ready=podviews.is_ready(node),
        zone=(meta.get("labels") or {}).get(core.ZONE_LABEL, ""),
        taints=[f"{one['key']}:{one['effect']}" for one in spec.get("taints") or []],
        pods=counts.get(meta["name"], 0),
    )


def _pod(pod: Object) -> PodPicture:
    meta, status = pod["metadata"], pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    phase = "Terminating" if meta.get("deletionTimestamp") else status.get("phase", "Pending")
    for one in containers:
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and phase != "Terminating":
            phase = waiting["reason"]
    return PodPicture(
        namespace=meta["namespace"],
        name=meta["name"],
        node=pod["spec"].get("nodeName", ""),
        phase=phase,
        ready=sum(bool(one.get("ready")) for one in containers),
        containers=len(pod["spec"]["containers"]),
        restarts=sum(int(one.get("restartCount", 0)) for one in containers),
        addresses=[one["ip"] for one in status.get("podIPs") or []],
    )


def _endpoints(slices: list[Object]) -> dict[tuple[str, str], int]:
    """Return how many endpoints of each Service are ready; both families' of one pod are one."""
    found: dict[tuple[str, str], set[str]] = {}
    for one in slices:
        meta = one["metadata"]
        name = (meta.get("labels") or {}).get(discovery.SERVICE_NAME_LABEL, "")
        for endpoint in one.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready", True):
                who = (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
                found.setdefault((meta["namespace"], name), set()).add(who)
    return {key: len(names) for key, names in found.items()}


def _service(service: Object, ready: dict[tuple[str, str], int]) -> ServicePicture:
    meta, spec = service["metadata"], service["spec"]
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    addresses = list(spec.get("clusterIPs") or filter(None, [spec.get("clusterIP")]))
    addresses += spec.get("externalIPs") or []
    addresses += [one["ip"] for one in balancer.get("ingress") or [] if one.get("ip")]
    ports = []
    for one in spec.get("ports") or []:
        node_port = f":{one['nodePort']}" if one.get("nodePort") else ""
        ports.append(f"{one['port']}{node_port}/{one.get('protocol', 'TCP')}")
    return ServicePicture(
        namespace=meta["namespace"],
        name=meta["name"],
        type=spec.get("type", "ClusterIP"),
        addresses=addresses or ([spec["externalName"]] if spec.get("externalName") else []),
        ports=ports,
        endpoints=ready.get((meta["namespace"], meta["name"]), 0),
    )
