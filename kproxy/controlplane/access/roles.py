"""What somebody may do: a few built-in roles instead of RBAC objects. Pure.

====================  ==========================================================================
admin                 everything (group system:masters)
controller manager    everything but exec
scheduler             read everything but Secrets; bind pods, their status, Events, the Leases of
                      kube-system
proxy                 read Services, EndpointSlices, Nodes, Namespaces, ServiceCIDRs; Events
name server           read Services, EndpointSlices, Namespaces, Pods
load balancer         read what a proxy reads; write the status of Services, Events
monitoring            /metrics, here and of kubelets (group system:monitoring); read what tells
                      how things are: nodes, pods, Services, their endpoints, workloads, Leases
prober                read Services
remediation           read nodes, pods, workloads, Services, Leases; in kube-system delete pods and
                      execute in them; patch nodes (to cordon them); Events
node                  see :mod:`noderules`
service account       ask what it may do; of kube-system, kube-proxy is a proxy as well,
                      prometheus and kube-state-metrics are monitoring, kproxy-prober a prober,
                      kproxy-remediation remediation
nobody                /healthz, /readyz, /livez, /version
====================  ==========================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import identity
from .identity import User

METRICS = "/metrics"
OPEN_PATHS = ("/healthz", "/readyz", "/livez", "/version")
_DISCOVERY = ("/api", "/apis", "/openapi", *OPEN_PATHS)
READ = ("get", "list", "watch")
_SELF_REVIEWS = ("selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews")
_PROXY_READS = (
    "services",
    "endpointslices",
    "endpoints",
    "nodes",
    "namespaces",
    "servicecidrs",
)
_SYSTEM_ACCOUNT = f"{identity.ACCOUNT_PREFIX}kube-system:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What is asked for: an action on a resource, or (``path``) on what is no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def __str__(self) -> str:
        """Return how messages tell it."""
        if self.path:
            return f"{self.verb} path {self.path!r}"
        what = "/".join(part for part in (self.resource, self.subresource) if part)
        where = f' in the namespace "{self.namespace}"' if self.namespace else ""
        return f'{self.verb} resource "{what}" in API group "{self.group}"' + (
            where or " at the cluster scope"
        )


def allowed(user: User, asked: Attributes) -> bool:
    """Return whether somebody may do something, as far as his role says it.

    Nodes are judged by their role here, and by :mod:`noderules` for the single object.
    """
    if asked.path:
        return _path_allowed(user, asked)
    if identity.ADMINS in user.groups:
        return True
    if identity.AUTHENTICATED in user.groups and asked.resource in _SELF_REVIEWS:
        return asked.verb == "create"
    role = _role(user)
    return role is not None and role(asked)


def _path_allowed(user: User, asked: Attributes) -> bool:
    if identity.ADMINS in user.groups:
        return True
    if asked.verb != "get":
        return False
    if asked.path in OPEN_PATHS:
        return True
    top = "/" + asked.path.strip("/").partition("/")[0]
    if identity.AUTHENTICATED not in user.groups:
        return False
    return top in _DISCOVERY or (asked.path == METRICS and reads_metrics(user))


def reads_metrics(user: User) -> bool:
    """Return whether somebody may read the metrics of servers that ask who one is."""
    return identity.ADMINS in user.groups or _role(user) in (_controller, _monitoring)


def _role(user: User) -> Callable[[Attributes], bool] | None:
    if user.node:
        return _node
    if identity.MONITORS in user.groups:
        return _monitoring
    return {
        identity.CONTROLLER_MANAGER: _controller,
        identity.SCHEDULER: _scheduler,
        identity.PROXY: _proxy,
        identity.DNS: _name_server,
        identity.BALANCER: _balancer,
        identity.PROBER: _prober,
        identity.REMEDIATION: _remediation,
        f"{_SYSTEM_ACCOUNT}kube-proxy": _proxy,
        f"{_SYSTEM_ACCOUNT}prometheus": _monitoring,
        f"{_SYSTEM_ACCOUNT}kube-state-metrics": _monitoring,
        f"{_SYSTEM_ACCOUNT}kproxy-prober": _prober,
        f"{_SYSTEM_ACCOUNT}kproxy-remediation": _remediation,
    }.get(user.name)


def _controller(asked: Attributes) -> bool:
    return asked.subresource != "exec"


def _scheduler(asked: Attributes) -> bool:
    if asked.verb in READ:
        return asked.resource != "secrets" and asked.subresource in ("", "status")
    if asked.resource == "pods":
        return asked.subresource in ("binding", "status") or asked.verb == "delete"
    if asked.resource == "leases":
        return asked.verb in ("create", "patch", "update") and asked.namespace == "kube-system"
    return asked.resource == "events" and asked.verb in ("create", "patch", "update")


def _proxy(asked: Attributes) -> bool:
    if asked.verb in READ:
        return asked.resource in _PROXY_READS
    return asked.resource == "events" and asked.verb in ("create", "patch", "update")


def _name_server(asked: Attributes) -> bool:
    readable = ("services", "endpointslices", "namespaces", "pods")
    return asked.verb in READ and asked.resource in readable and not asked.subresource


def _balancer(asked: Attributes) -> bool:
    if (asked.resource, asked.subresource) == ("services", "status"):
        return asked.verb in ("get", "patch", "update")
    return _proxy(asked)


_MONITORED = (
    *_PROXY_READS,
    "pods",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "leases",
)


def _monitoring(asked: Attributes) -> bool:
    return asked.verb in READ and asked.resource in _MONITORED and not asked.subresource


def _prober(asked: Attributes) -> bool:
    return asked.verb in READ and asked.resource == "services" and not asked.subresource


_REMEDIATION = {
    ("nodes", ""): (*READ, "patch"),
    ("pods", ""): READ,
    ("daemonsets", ""): READ,
    # What an Event is about is named by its uid.
    ("deployments", ""): ("get", "list"),
    ("services", ""): ("get", "list"),
    ("leases", ""): ("get", "list"),
    ("events", ""): ("create", "patch", "update"),
}
_REMEDIATION_IN_SYSTEM = {
    ("pods", ""): ("delete",),
    # A WebSocket begins with GET.
    ("pods", "exec"): ("create", "get"),
}


def _remediation(asked: Attributes) -> bool:
    what = asked.resource, asked.subresource
    if asked.namespace == "kube-system" and asked.verb in _REMEDIATION_IN_SYSTEM.get(what, ()):
        return True
    return asked.verb in _REMEDIATION.get(what, ())


_NODE_WRITES = {
    ("nodes", ""): ("create", "patch", "update"),
    ("nodes", "status"): ("patch", "update"),
    ("leases", ""): ("create", "delete", "get", "patch", "update"),
    ("pods", ""): ("create", "delete"),
    ("pods", "status"): ("patch", "update"),
    ("pods", "eviction"): ("create",),
    ("events", ""): ("create", "patch", "update"),
    ("serviceaccounts", "token"): ("create",),
    ("tokenreviews", ""): ("create",),
    ("subjectaccessreviews", ""): ("create",),
}
_NODE_READS = (*_PROXY_READS, "pods", "configmaps", "secrets", "serviceaccounts", "leases")


def _node(asked: Attributes) -> bool:
    if asked.verb in READ and asked.subresource in ("", "status"):
        only_by_name = asked.resource in ("secrets", "configmaps", "serviceaccounts", "leases")
        return asked.resource in _NODE_READS and (asked.verb == "get" or not only_by_name)
    return asked.verb in _NODE_WRITES.get((asked.resource, asked.subresource), ())
