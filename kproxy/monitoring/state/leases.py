"""``kube_lease_*``: leaders, and the signs of life of nodes. Pure."""

from collections.abc import Iterator

from kproxy.api.configuration import Lease

from .telling import Told, time

WORDS = {
    "kube_lease_owner": "Who holds a Lease.",
    "kube_lease_renew_time": "When a Lease was renewed, in seconds since 1970.",
}


def tell(lease: Lease) -> Iterator[Told]:
    """Yield what is told of a Lease."""
    labels = {"namespace": lease.metadata.namespace, "lease": lease.metadata.name}
    owner = next(iter(lease.metadata.owner_references or ()), None)
    about = {
        "owner_kind": owner.kind if owner else "",
        "owner_name": owner.name if owner else "",
        "lease_holder": lease.spec.holder_identity or "",
    }
    yield Told("kube_lease_owner", {**labels, **about}, 1)
    yield from time("kube_lease_renew_time", labels, lease.spec.renew_time)
