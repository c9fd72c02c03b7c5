"""Who somebody is to the API: a name and groups, as Kubernetes has them. Pure."""

from dataclasses import dataclass

ADMINS = "system:masters"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
ACCOUNTS = "system:serviceaccounts"
ACCOUNT_PREFIX = "system:serviceaccount:"
AUTHENTICATED = "system:authenticated"
CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
DNS = "system:kube-dns"
BALANCER = "system:cloud-controller-manager"
"""Who makes Services of type LoadBalancer reachable: elsewhere a cloud does."""
MONITORS = "system:monitoring"
"""Kubernetes' group of those who read metrics."""
PROMETHEUS = "prometheus"
PROBER = "kproxy-prober"
"""Who asks Services how they fare, as their clients do."""
REMEDIATION = "kproxy-remediation"
"""Who runs prepared actions because of alerts."""
API_SERVER = "kube-apiserver-kubelet-client"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who sends a request."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""

    @property
    def node(self) -> str:
        """The name of the node that this is; empty: it is none."""
        is_node = NODES in self.groups and self.name.startswith(NODE_PREFIX)
        return self.name.removeprefix(NODE_PREFIX) if is_node else ""


ANONYMOUS = User(name="system:anonymous", groups=("system:unauthenticated",))
EVERYBODY = User(name="system:insecure", groups=(ADMINS, AUTHENTICATED))
"""Who everybody is to a server that asks nobody."""


def authenticated(name: str, groups: tuple[str, ...] = (), uid: str = "") -> User:
    """Return somebody who has proved who he is."""
    return User(name=name, groups=(*groups, AUTHENTICATED), uid=uid)


def account(namespace: str, name: str, uid: str = "") -> User:
    """Return a service account."""
    groups = (ACCOUNTS, f"{ACCOUNTS}:{namespace}")
    return authenticated(f"{ACCOUNT_PREFIX}{namespace}:{name}", groups, uid)
