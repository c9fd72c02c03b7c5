"""How a pod finds names: the content of its ``/etc/resolv.conf``. Pure.

After ``dnsPolicy`` and ``dnsConfig`` in the Pod API reference and the kubelet's way with them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy.api.pods import Pod, PodDNSConfig

DOMAIN = "cluster.local"
NDOTS = "ndots:5"
MOST_NAMESERVERS = 3
MOST_SEARCHES = 32
MOST_SEARCH_LETTERS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """Whom to ask, which domains to try, and how."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the file."""
        lines = []
        if self.searches:
            lines.append(f"search {' '.join(self.searches)}")
        lines += [f"nameserver {address}" for address in self.nameservers]
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNames:
    """What a kubelet knows of names: of the cluster's servers, and of its node's resolver.

    Without servers, every pod resolves as its node does.
    """

    servers: tuple[str, ...] = ()
    domain: str = DOMAIN
    host: Resolver = Resolver()

    def file_of(self, pod: Pod) -> str:
        """Return the content of a pod's resolv.conf; empty: it has the node's own."""
        found = for_pod(pod, self.host, self.servers, self.domain)
        return "" if found == self.host else found.text()


def parse(text: str) -> Resolver:
    """Return what a resolv.conf says; what is unknown in it is left out."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            nameservers.append(rest[0])
        elif word in ("search", "domain"):
            searches = tuple(rest)
        elif word == "options":
            options += rest
    return Resolver(nameservers=tuple(nameservers), searches=searches, options=tuple(options))


def cluster_first(namespace: str, servers: Sequence[str], domain: str) -> Resolver:
    """Return how a pod of a namespace finds the cluster's names."""
    return Resolver(
        nameservers=tuple(servers),
        searches=(f"{namespace}.svc.{domain}", f"svc.{domain}", domain),
        options=(NDOTS,),
    )


def for_pod(pod: Pod, host: Resolver, servers: Sequence[str], domain: str = DOMAIN) -> Resolver:
    """Return a pod's resolver; ``host``: that of its node, ``servers``: the cluster's.

    Without servers, every pod resolves as its node does.
    """
    spec = pod.spec
    policy = spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirst" and spec.host_network:
        policy = "Default"
    if policy == "None":
        base = Resolver()
    elif policy == "Default" or not servers:
        base = host
    else:
        own = cluster_first(pod.metadata.namespace, servers, domain)
        base = Resolver(
            nameservers=own.nameservers,
            searches=_each_once((*own.searches, *host.searches)),
            options=own.options,
        )
    return _limited(_with(base, spec.dns_config) if spec.dns_config else base)


def _with(base: Resolver, config: PodDNSConfig) -> Resolver:
    """Return a resolver with what a pod asks for beside it; its options go first by name."""
    asked = {
        one.name: one.name if one.value is None else f"{one.name}:{one.value}"
        for one in config.options or ()
        if one.name
    }
    kept = [option for option in base.options if option.partition(":")[0] not in asked]
    return Resolver(
        nameservers=_each_once((*base.nameservers, *(config.nameservers or ()))),
        searches=_each_once((*base.searches, *(config.searches or ()))),
        options=(*kept, *asked.values()),
    )


def _limited(resolver: Resolver) -> Resolver:
    """Return no more than resolvers take."""
    searches: list[str] = []
    for domain in resolver.searches[:MOST_SEARCHES]:
        if len(" ".join((*searches, domain))) > MOST_SEARCH_LETTERS:
            break
        searches.append(domain)
    return Resolver(
        nameservers=resolver.nameservers[:MOST_NAMESERVERS],
        searches=tuple(searches),
        options=resolver.options,
    )


def _each_once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
