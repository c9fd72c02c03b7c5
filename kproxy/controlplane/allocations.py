"""The addresses and ports that Services take: given out, released and repaired.

What is taken is in the store: an IPAddress object for each ClusterIP (KEP-1880), and
``/allocations/nodeports/PORT`` for each node port, as in Kubernetes one for all protocols. It is
written and deleted in the same commit as its Service, and only if nobody else has it; so two API
servers never give out one thing twice, and nothing is lost between two writes.

What nobody asked for by name is drawn from the upper band of its range, so that the lower one
stays free for those who do ask (KEP-3070, KEP-3668), until the upper one is full.
"""

import ipaddress
import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kproxy import errors, logs

from . import addresses, versions
from .addresses import Network
from .storage import base
from .store import Store
from .versions import Item, Key, Object

NODE_PORTS = range(30000, 32768)
REPAIR_SECONDS = 180.0

_IPS, _PORTS = "ipaddresses", "nodeports"
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")

Place = tuple[str, Key]
"""A resource and a key in it: what can be taken."""


class Allocations:
    """What is taken by the Services of a store. Every method may be called from any thread.

    ``draw`` decides which of the free ones is given out.
    """

    def __init__(
        self,
        store: Store,
        cidrs: Sequence[Network],
        *,
        draw: random.Random,
        ports: range = NODE_PORTS,
    ) -> None:
        self.store = store
        self._cidrs = tuple(cidrs)
        self._draw = draw
        self._ports = ports

    def plan(
        self, old: Object | None, new: Object | None
    ) -> tuple[Object | None, Sequence[base.Write]]:
        """Return a Service with all that it gets, and the writes that take and release.

        See :data:`store.Plan`. Raises InvalidObject for what is taken, out of range or of a family
        that the cluster lacks, and ApiError 500 when nothing is left.
        """
        before = set(claims(old))
        if new is not None:
            new = self._with_addresses(old, new)
            new = self._with_ports(old, new)
        after = set(claims(new))
        writes = [self._take(place, new) for place in sorted(after - before) if new]
        for place in sorted(before - after):
            item = self.store.peek(*place)
            if item is not None and _owner(place, item) == _reference(old or {}):
                path = versions.path_of(*place)
                writes.append(base.Write(path, None, item.revision))
        if new is not None and len(writes) >= base.LARGEST_COMMIT:
            problem = f"too many addresses and ports change at once: {len(writes)}"
            remedy = f"change less than {base.LARGEST_COMMIT}, then the rest"
            raise errors.InvalidObject(_name(new), "spec.ports", problem, remedy=remedy)
        return new, writes

    def repair(self) -> list[str]:
        """Take what Services have but is not taken, release what none has; say what was wrong.

        Raises ApiError when the store does not answer.
        """
        services, version = self.store.list("services")
        taken: dict[Place, Item] = {}
        for resource in (_IPS, _PORTS):
            items, _ = self.store.list(resource, at=version)
            taken |= {(resource, versions.key_of(item.obj)): item for item in items}
        holders: dict[Place, Object] = {}
        told = []
        for service in sorted((item.obj for item in services), key=_age):
            for place in claims(service):
                holder = holders.setdefault(place, service)
                if holder is not service:
                    told.append(f"{_name(service)}: {place[1][1]} belongs to {_name(holder)}")
        for place, service in holders.items():
            if place not in taken and self._done(self._take(place, service)):
                told.append(f"{_name(service)}: {place[1][1]} was not taken")
        for place, item in taken.items():
            owner, holder_ref = _owner(place, item), _reference(holders.get(place, {}))
            if owner is None or owner == holder_ref:
                continue
            value = None if place not in holders else self._value(place, holders[place])
            if self._done(base.Write(versions.path_of(*place), value, item.revision)):
                told.append(f"{place[1][1]} was taken for {owner or 'nobody'}")
        return told

    def _done(self, write: base.Write) -> bool:
        try:
            self.store.commit([write])
        except base.Mismatch:  # somebody else was faster; the next repair looks again
            return False
        return True

    def _with_addresses(self, old: Object | None, service: Object) -> Object:
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return service
        pools = self._pools()
        wanted = addresses.wanted(old, service)
        families = addresses.families(service, wanted, tuple(pools))
        result = {
            **spec,
            "ipFamilies": families,
            "ipFamilyPolicy": addresses.policy(spec, families),
        }
        if spec.get("clusterIP") == "None":
            result["clusterIPs"] = ["None"]
            return {**service, "spec": result}
        mine = {key[1] for resource, key in claims(old) if resource == _IPS}
        taken = {item.obj["metadata"]["name"] for item in self._all(_IPS)} - mine
        # What it has it keeps, also if it would not be given out any more.
        given = [
            text if text in mine else addresses.check(service, text, pools, taken)
            for text in wanted
        ]
        for family in families[len(given) :]:
            given.append(self._address(service, pools[family], taken))
        result.update(clusterIP=given[0], clusterIPs=given)
        return {**service, "spec": result}

    def _pools(self) -> dict[str, list[Network]]:
        """Return the networks of each family: the flag's, then those of ServiceCIDRs."""
        found = list(self._cidrs)
        for item in self._all("servicecidrs"):
            if not item.obj["metadata"].get("deletionTimestamp"):
                for text in item.obj.get("spec", {}).get("cidrs") or ():
                    try:
                        found.append(ipaddress.ip_network(text))
                    except ValueError:
                        continue  # validation refuses it; nothing is given out from it
        pools: dict[str, list[Network]] = {}
        for cidr in dict.fromkeys(found):
            pools.setdefault(f"IPv{cidr.version}", []).append(cidr)
        return pools

    def _address(self, service: Object, pool: Sequence[Network], taken: set[str]) -> str:
        for cidr in pool:
            usable, static = addresses.bands(cidr)
            for offset in self._candidates(usable, static):
                address = str(cidr[offset])
                if address not in taken:
                    return address
        cidrs = ", ".join(map(str, pool))
        raise _exhausted(service, "spec.clusterIPs", f"all addresses of {cidrs} are taken")

    def _candidates(self, usable: range, static: int) -> Iterator[int]:
        """Return a range's members: the upper band from a random one on, then the lower one."""
        upper, lower = usable[static:], usable[:static]
        for band in (upper, lower):
            start = self._draw.randrange(len(band)) if band else 0
            for index in range(len(band)):
                yield band[(start + index) % len(band)]

    def _with_ports(self, old: Object | None, service: Object) -> Object:
        spec = dict(service["spec"])
        if spec.get("type") not in _WITH_NODE_PORTS:
            return service  # most are: nothing is to be looked up for them
        mine = {int(key[1]) for resource, key in claims(old) if resource == _PORTS}
        taken = {int(item.obj["metadata"]["name"]) for item in self._all(_PORTS)} - mine
        if spec.get("ports"):
            spec["ports"] = self._node_ports(service, taken, mine)
        if _wants_health_check(spec):
            asked = spec.get("healthCheckNodePort")
            used = taken | set(_node_ports(spec))
            if not asked:
                asked = self._port(service, "spec.healthCheckNodePort", used)
            elif asked not in mine - used:
                self._check_port(service, "spec.healthCheckNodePort", asked, used)
            spec["healthCheckNodePort"] = asked
        return {**service, "spec": spec}

    def _node_ports(self, service: Object, taken: set[int], mine: set[int]) -> list[Object]:
        """Return the ports with node ports: ports of one number (TCP and UDP) share one."""
        spec = service["spec"]
        shared: dict[int, int] = {}
        for index, port in enumerate(spec["ports"]):
            if asked := port.get("nodePort"):
                if asked not in mine:
                    self._check_port(service, f"spec.ports[{index}].nodePort", asked, taken)
                shared.setdefault(port["port"], asked)
        used = taken | set(_node_ports(spec))
        result = []
        for index, port in enumerate(spec["ports"]):
            number = port.get("nodePort") or 0
            if not number and _wants_node_ports(spec):
                number = shared.get(port["port"]) or self._port(
                    service, f"spec.ports[{index}].nodePort", used
                )
                shared[port["port"]] = number
                used.add(number)
            result.append({**port, "nodePort": number} if number else port)
        return result

    def _check_port(self, service: Object, field: str, number: int, taken: set[int]) -> None:
        first, last = self._ports[0], self._ports[-1]
        if number not in self._ports:
            problem = f"{number}: provided port is not in the valid range"
            remedy = f"the range of valid ports is {first}-{last}"
        elif number in taken:
            problem = f"{number}: provided port is already allocated"
            remedy = "choose another, or leave it out to be given one"
        else:
            return
        raise errors.InvalidObject(_name(service), field, problem, remedy=remedy)

    def _port(self, service: Object, field: str, used: set[int]) -> int:
        static = addresses.band(len(self._ports), step=32, largest=128)
        for number in self._candidates(self._ports, static):
            if number not in used:
                return number
        problem = f"all ports of {self._ports[0]}-{self._ports[-1]} are taken"
        raise _exhausted(service, field, problem)

    def _all(self, resource: str) -> Sequence[Item]:
        return self.store.list(resource, fresh=False)[0]

    def _take(self, place: Place, service: Object) -> base.Write:
        return base.Write(
            versions.path_of(*place), self._value(place, service), expected=base.ABSENT
        )

    def _value(self, place: Place, service: Object) -> bytes:
        resource, (_, name) = place
        meta = service["metadata"]
        parent = {"namespace": meta.get("namespace", ""), "name": meta["name"]}
        if resource == _PORTS:
            return versions.stored({"metadata": {"name": name}, "service": parent})
        return versions.stored(addresses.ip_address(name, parent, self.store.identity()))


def generator() -> random.Random:
    """Return what decides which of the free ones is given out, by ``KPROXY_SEED`` if it is set.

    Two API servers of one seed draw the same; of two that take the same, one draws again.
    """
    seed = os.environ.get("KPROXY_SEED")
    return random.Random(f"allocations {seed}" if seed else None)  # noqa: S311  nothing secret is drawn


def keep_repaired(allocations: Allocations, log: logs.Log) -> None:
    """Repair now and every REPAIR_SECONDS until the store is closed, in a thread of its own."""
    thread = threading.Thread(
        target=_repair_again_and_again, args=(allocations, log), name="repair", daemon=True
    )
    thread.start()


def _repair_again_and_again(allocations: Allocations, log: logs.Log) -> None:
    while not allocations.store.closed:
        try:
            for line in allocations.repair():
                log.warning("repaired an allocation", what=line)
        except errors.ApiError as error:
            log.warning("cannot repair allocations", error=str(error))
        allocations.store.wait_closed(REPAIR_SECONDS)


def kept(old: Object, new: Object) -> Object:
    """Return an update of a Service with the node ports that it leaves out and goes on to need.

    Those that it repeats though it needs them no longer (another type) are taken out, so that a
    client may read, change the type, and write. As in Kubernetes; before defaults and validation.
    """
    spec, before = dict(new.get("spec") or {}), old["spec"]
    had = {
        (port.get("protocol", "TCP"), port["port"]): port["nodePort"]
        for port in before.get("ports") or ()
        if port.get("nodePort")
    }
    needs = spec.get("type", "ClusterIP") in _WITH_NODE_PORTS
    if spec.get("ports"):
        spec["ports"] = [_kept_port(port, had, needs) for port in spec["ports"]]
    number = before.get("healthCheckNodePort")
    if _wants_health_check(spec):
        if number and not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = number
    elif spec.get("healthCheckNodePort") == number:
        spec.pop("healthCheckNodePort", None)
    return {**new, "spec": spec}


def _kept_port(port: Any, had: Mapping[tuple[str, int], int], needs: bool) -> Any:
    if not isinstance(port, dict):
        return port  # validation will say so
    number = had.get((port.get("protocol", "TCP"), port.get("port", 0)))
    if needs and number and not port.get("nodePort"):
        return {**port, "nodePort": number}
    if not needs and port.get("nodePort") and port["nodePort"] == number:
        return {name: value for name, value in port.items() if name != "nodePort"}
    return port


def claims(service: Object | None) -> Iterator[Place]:
    """Return what a Service takes."""
    spec = (service or {}).get("spec") or {}
    if spec.get("type") != "ExternalName":
        for text in spec.get("clusterIPs") or filter(None, [spec.get("clusterIP")]):
            if text != "None":
                yield _IPS, ("", text)
    if spec.get("type") in _WITH_NODE_PORTS:
        numbers = _node_ports(spec)
        if _wants_health_check(spec) and spec.get("healthCheckNodePort"):
            numbers.append(spec["healthCheckNodePort"])
        for number in sorted(set(numbers)):
            yield _PORTS, ("", str(number))


def _node_ports(spec: Object) -> list[int]:
    return [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]


def _wants_node_ports(spec: Object) -> bool:
    if spec.get("type") == "LoadBalancer":
        return spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort"


def _wants_health_check(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _reference(service: Object) -> str:
    """Return how an allocation names a Service; empty for none."""
    return "/".join(versions.key_of(service)) if service else ""


def _owner(place: Place, item: Item) -> str | None:
    """Return for which Service something is taken; None: for something else than a Service."""
    if place[0] == _PORTS:
        parent = item.obj.get("service") or {}
    else:
        parent = (item.obj.get("spec") or {}).get("parentRef") or {}
        if parent.get("resource") != "services" or parent.get("group"):
            return None
    return f"{parent.get('namespace', '')}/{parent.get('name', '')}"


def _age(service: Object) -> tuple[str, str]:
    return service["metadata"].get("creationTimestamp", ""), _reference(service)


def _name(service: Object) -> str:
    return f"Service {_reference(service)}"


def _exhausted(service: Object, field: str, problem: str) -> errors.ApiError:
    return errors.ApiError(500, "InternalError", f"{_name(service)}: {field}: {problem}")
