"""Writes EndpointSlices: creates, changes and deletes them as a plan says, and tells of it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from kproxy import costs, logs
from kproxy.api import codec, discovery, kinds, meta
from kproxy.controlplane.cluster import Cluster

from . import slices

Object = dict[str, Any]
Slice = discovery.EndpointSlice


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What all slices of a Service have: whose they are. ``annotations`` make no difference."""

    namespace: str
    service: str
    labels: Mapping[str, str]
    owner: meta.OwnerReference
    annotations: Mapping[str, str] = field(default_factory=dict)


class SliceWriter:
    """Writes the slices of one manager. ``noted`` is told of every own write, old and new."""

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        manager: str,
        *,
        noted: Callable[[Slice | None, Slice | None], None] = lambda *_: None,
        cost: costs.Costs = costs.FREE,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self.manager = manager
        self._noted = noted
        self._cost = cost

    def owns(self, one: Slice, service: str = "") -> bool:
        """Return whether a slice is of this manager (and of a Service)."""
        labels = one.metadata.labels or {}
        name = labels.get(discovery.SERVICE_NAME_LABEL)
        ours = labels.get(discovery.MANAGED_BY_LABEL) == self.manager
        return ours and bool(name) and (not service or name == service)

    def apply(self, head: Head, plan: slices.Plan, taken: Collection[str]) -> None:
        """Write what differs. ``taken``: names of slices that are there. Raises KproxyError."""
        names = set(taken)
        for group, endpoints in plan.create:
            name = _free_name(head.service, names)
            names.add(name)
            made = self._slice(head, group, endpoints, meta.ObjectMeta(name=name))
            self._write(self._cluster.create, made)
            self._tell("slice created", made)
        for one, endpoints in plan.keep:
            group = slices.Group(one.address_type, tuple(one.ports or ()))
            made = self._slice(head, group, endpoints, one.metadata)
            if _content(made) != _content(one):
                self._cost.pay(costs.SLICE)
                self._write(self._cluster.update, made)
                self._tell("slice updated", made)
        for one in plan.delete:
            self.delete(one)

    def delete(self, one: Slice) -> None:
        """Delete a slice. Raises KproxyError."""
        of = one.metadata
        self._cluster.delete(kinds.ENDPOINT_SLICE, of.namespace, of.name, uid=of.uid)
        self._noted(one, None)
        self._tell("slice deleted", one)

    def _write(self, write: Callable[[kinds.Kind, Object], Object], made: Slice) -> None:
        data = codec.to_dict(made)
        # to_dict leaves out empty text, but a label may well be empty.
        data["metadata"]["labels"] = made.metadata.labels
        self._noted(None, codec.from_dict(write(kinds.ENDPOINT_SLICE, data), Slice))

    def _slice(
        self, head: Head, group: slices.Group, endpoints: slices.Endpoints, old: meta.ObjectMeta
    ) -> Slice:
        """Return a slice as it should be, under the name and version of another one."""
        marks = {
            discovery.SERVICE_NAME_LABEL: head.service,
            discovery.MANAGED_BY_LABEL: self.manager,
        }
        return Slice(
            metadata=meta.ObjectMeta(
                name=old.name,
                namespace=head.namespace,
                resource_version=old.resource_version,
                labels={**head.labels, **marks},
                annotations=dict(head.annotations),
                owner_references=[head.owner],
            ),
            address_type=group.family,
            endpoints=list(endpoints),
            ports=list(group.ports),
        )

    def _tell(self, msg: str, one: Slice) -> None:
        ready = [e.conditions for e in one.endpoints or () if e.conditions and e.conditions.ready]
        self._log.info(
            msg,
            slice=f"{one.metadata.namespace}/{one.metadata.name}",
            endpoints=len(one.endpoints or ()),
            ready=len(ready),
        )


def _free_name(service: str, taken: Collection[str]) -> str:
    """Return a name for a new slice; a reader of the API sees them in order."""
    number = 1
    while f"{service}-{number}" in taken:
        number += 1
    return f"{service}-{number}"


def _content(one: Slice) -> tuple[Any, ...]:
    """Return what decides whether a slice has to be written."""
    ports, endpoints = one.ports or [], one.endpoints or []
    return one.metadata.labels, one.metadata.owner_references, one.address_type, ports, endpoints
