"""The chain itself: its links in order, from the rule in a kernel to what everything stands on."""

from kproxy import errors
from kproxy.lab.chain import faults, links
from kproxy.lab.chain.links import EVERYTHING, NEW_CONNECTIONS, Link

_NOBODY = "nobody: by hand"
MANY_CONNECTS = 1000.0
"""New connections/s during a rolling update of backends."""

BASELINE = Link(
    name="baseline",
    title="nothing",
    guarantor="",
    run=links.baseline,
    group=1,
    lossless=EVERYTHING,
)
LINKS = {
    link.name: link
    for link in (
        BASELINE,
        Link(
            name="proxy-process",
            title="proxy, its process",
            guarantor="kubelet",
            run=links.proxy_process,
            group=1,
            lossless=EVERYTHING,
        ),
        Link(
            name="proxy-pod",
            title="proxy, its pod",
            guarantor="DaemonSet controller",
            run=links.proxy_pod,
            group=2,
            lossless=EVERYTHING,
        ),
        Link(
            name="proxy-and-backend",
            title="proxy and a backend",
            guarantor="kubelet",
            run=links.proxy_and_backend,
            group=3,
        ),
        Link(
            name="daemonset-controller",
            title="DaemonSet controller, then a proxy's pod",
            guarantor="next leader",
            run=links.daemonset_controller,
            group=3,
            lossless=EVERYTHING,
        ),
        Link(
            name="all-managers",
            title="all managers, then a proxy's pod",
            guarantor="init, next leader",
            run=links.all_managers,
            group=4,
            lossless=EVERYTHING,
        ),
        Link(
            name="api-server",
            title="one API server",
            guarantor="other servers, load balancer",
            run=links.api_server,
            group=4,
            lossless=EVERYTHING,
        ),
        Link(
            name="all-api-servers",
            title="all API servers",
            guarantor=_NOBODY,
            run=links.all_api_servers,
            group=2,
            seconds=110,
            lossless=EVERYTHING,
        ),
        Link(
            name="etcd-member",
            title="one etcd member",
            guarantor="other members",
            run=links.etcd_member,
            group=5,
            etcd=True,
            lossless=EVERYTHING,
        ),
        Link(
            name="etcd-leader",
            title="etcd's leader",
            guarantor="Raft election",
            run=links.etcd_leader,
            group=6,
            etcd=True,
            lossless=EVERYTHING,
        ),
        Link(
            name="etcd-majority",
            title="etcd's majority",
            guarantor=_NOBODY,
            run=links.etcd_majority,
            group=5,
            seconds=110,
            etcd=True,
            lossless=EVERYTHING,
        ),
        Link(
            name="kubelet",
            title="kubelet",
            guarantor="init (systemd)",
            run=links.kubelet,
            group=6,
            lossless=EVERYTHING,
        ),
        Link(
            name="uplink",
            title="a node's uplink",
            guarantor=_NOBODY,
            run=links.uplink,
            group=6,
            seconds=130,
        ),
        Link(
            name="node",
            title="a whole node",
            guarantor="node controller",
            run=links.whole_node,
            group=7,
            seconds=450,
        ),
        Link(
            name="backend-pod",
            title="a backend pod",
            guarantor="kubelet",
            run=links.backend_pod,
            group=2,
        ),
        Link(
            name="rollout",
            title="rolling update of backends, careful",
            guarantor="readiness, preStop",
            run=links.rollout,
            group=8,
            seconds=200,
            connects_per_s=MANY_CONNECTS,
            lossless=NEW_CONNECTIONS,
        ),
        Link(
            name="careless-rollout",
            title="rolling update of backends, careless",
            guarantor="nobody",
            run=links.careless_rollout,
            group=8,
            seconds=150,
            prepare=links.make_careless,
            connects_per_s=MANY_CONNECTS,
        ),
        Link(
            name="proxy-rollout",
            title="rolling update of proxies, maxUnavailable",
            guarantor="DaemonSet controller",
            run=links.proxy_rollout,
            group=1,
            lossless=EVERYTHING,
        ),
        Link(
            name="proxy-surge-rollout",
            title="rolling update of proxies, maxSurge",
            guarantor="DaemonSet controller",
            run=links.proxy_surge_rollout,
            group=4,
            lossless=EVERYTHING,
        ),
        *faults.links(),
    )
}


def names(*, monitoring: bool) -> tuple[str, ...]:
    """Return the names of the chain's links; ``monitoring``: also of what only that catches."""
    return tuple(link.name for link in LINKS.values() if monitoring or not link.fault)


def named(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the links of these names, each once; the name of a fault is that of all its links."""
    found: dict[str, None] = {}
    for name in names:
        of_fault = [link.name for link in LINKS.values() if link.fault == name]
        found.update(dict.fromkeys(of_fault or [name]))
    return tuple(found)


def by_name(name: str) -> Link:
    """Return a link. Raises ``UsageError`` naming those that exist."""
    try:
        return LINKS[name]
    except KeyError:
        raise errors.UsageError(
            f"--only {name}: there is no such link", remedy=f"known: {', '.join(LINKS)}"
        ) from None


def groups(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the links of every group that has any, in the chain's order."""
    numbers = sorted({LINKS[name].group for name in names})
    return [
        tuple(name for name in LINKS if name in names and LINKS[name].group == number)
        for number in numbers
    ]


def seconds(names: tuple[str, ...]) -> int:
    """Return how long links take one after the other, roughly."""
    return sum(LINKS[name].seconds for name in names)
