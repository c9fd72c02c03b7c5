"""Which ClusterIPs are taken, and which is next.

Filled and emptied together with the store (under its lock), so it says what the Services say.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

from kproxy import errors

Object = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_cidrs(text: str) -> tuple[Network, ...]:
    """Return one or two networks, of different families. Raises UsageError."""
    try:
        cidrs = tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise errors.UsageError(
            f"service CIDR: {error}", remedy="give networks like 10.96.0.0/16"
        ) from None
    if len({cidr.version for cidr in cidrs}) != len(cidrs):
        raise errors.UsageError(
            f"service CIDR {text}: two networks of one family",
            remedy="give one IPv4 and one IPv6 network",
        )
    return cidrs


def headless(service: Object) -> bool:
    """Return whether a Service has and gets no ClusterIP."""
    spec = service["spec"]
    return bool(spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None")


class ClusterIPs:
    """The addresses of Services. Not thread-safe: call it while the store is locked.

    Addresses are given in order, each once before any is given again, so that a replaced Service
    seldom meets the traffic of its predecessor. The network's own address is not given, nor the
    last one (IPv4's broadcast).
    """

    def __init__(self, cidrs: Sequence[Network]) -> None:
        self._cidrs = {f"IPv{cidr.version}": cidr for cidr in cidrs}
        self._next = dict.fromkeys(self._cidrs, 1)
        self._used: set[str] = set()

    def assign(self, service: Object) -> Object:
        """Return a Service with addresses, families and policy filled in; see :meth:`settle`.

        Raises InvalidObject for an address that is taken, outside, or of a family we lack.
        """
        spec = dict(service["spec"])
        if headless(service):
            if spec.get("clusterIP") == "None":
                spec["clusterIPs"] = ["None"]
                spec.setdefault("ipFamilies", [next(iter(self._cidrs))])
                spec.setdefault("ipFamilyPolicy", "SingleStack")
            return {**service, "spec": spec}
        wanted = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
        families = self._families(service, spec, wanted)
        addresses = [self._check(service, address) for address in wanted]
        addresses += [self._free(service, family) for family in families[len(addresses) :]]
        spec.update(clusterIP=addresses[0], clusterIPs=addresses, ipFamilies=families)
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        return {**service, "spec": spec}

    def settle(self, before: Object | None, after: Object | None) -> None:
        """Note what was stored: the addresses of ``before`` are free, those of ``after`` taken."""
        for service, note in ((before, self._used.discard), (after, self._used.add)):
            for address in (service["spec"].get("clusterIPs") or ()) if service else ():
                note(address)

    def _families(self, service: Object, spec: Object, wanted: Sequence[str]) -> list[str]:
        families = [f"IPv{_address(service, address).version}" for address in wanted]
        for family in spec.get("ipFamilies") or ():
            if family not in families:
                families.append(family)
        if not families:
            families.append(next(iter(self._cidrs)))
        policy = spec.get("ipFamilyPolicy", "SingleStack")
        if policy != "SingleStack":
            families += [family for family in self._cidrs if family not in families]
        missing = [family for family in families if family not in self._cidrs]
        if missing or (policy == "RequireDualStack" and len(families) < 2):
            field = "spec.ipFamilies[0]" if missing else "spec.ipFamilyPolicy"
            family = missing[0] if missing else "dual stack"
            raise errors.InvalidObject(
                _name(service),
                field,
                f"this cluster is not configured for {family}",
                remedy="start the API server with a service CIDR of that family",
            )
        return families

    def _check(self, service: Object, text: str) -> str:
        address = _address(service, text)
        cidr = self._cidrs[f"IPv{address.version}"]
        if address not in cidr:
            problem = f"{text} is not in the service CIDR {cidr}"
        elif str(address) in self._used:
            problem = f"{text} is already allocated"
        else:
            return str(address)
        raise errors.InvalidObject(
            _name(service),
            "spec.clusterIP",
            problem,
            remedy="choose another, or leave it out to be given one",
        )

    def _free(self, service: Object, family: str) -> str:
        cidr = self._cidrs[family]
        usable = cidr.num_addresses - 2
        for _ in range(max(usable, 0)):
            offset = self._next[family]
            self._next[family] = offset % usable + 1
            address = str(cidr[offset])
            if address not in self._used:
                return address
        raise errors.ApiError(
            500,
            "InternalError",
            f"{_name(service)}: spec.clusterIP: all addresses of {cidr} are taken",
        )


def _address(service: Object, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise errors.InvalidObject(
            _name(service), "spec.clusterIP", f"{text!r} is not an IP address"
        ) from None


def _name(service: Object) -> str:
    meta = service["metadata"]
    return f"Service {meta.get('namespace', '')}/{meta['name']}"
