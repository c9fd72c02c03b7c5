"""ClusterIPs: which families a Service gets, which addresses of a network may be given out.

Pure; what is taken is told by :mod:`allocations`.
"""

import ipaddress
from collections.abc import Mapping, Sequence, Set
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
    for cidr in cidrs:
        if not bands(cidr)[0]:
            raise errors.UsageError(
                f"service CIDR {cidr}: no address to give out", remedy="give a larger network"
            )
    return cidrs


def band(size: int, *, step: int, largest: int) -> int:
    """Return how many of a range are kept for those who ask for one by name (KEP-3070).

    >>> band(65536, step=16, largest=256), band(256, step=16, largest=256)
    (256, 16)
    """
    return 0 if size <= 16 else min(max(16, size // step), largest)


def bands(cidr: Network) -> tuple[range, int]:
    """Return the offsets that may be given out, and how many of the first are kept.

    Neither the network's own address nor IPv4's broadcast address may.
    """
    last = cidr.num_addresses - (1 if cidr.version == 4 else 0)
    # Of a huge network the beginning is enough, and offsets stay small.
    usable = range(1, min(last, 1 << 32))
    return usable, min(band(cidr.num_addresses, step=16, largest=256), len(usable))


def wanted(old: Object | None, service: Object) -> list[str]:
    """Return the addresses that a Service asks for, one of them when it gives up dual stack."""
    spec = service["spec"]
    if spec.get("clusterIP") == "None":
        return []
    asked = list(spec.get("clusterIPs") or filter(None, [spec.get("clusterIP")]))
    if spec.get("ipFamilyPolicy") == "SingleStack" and len(asked) > 1:
        if old is None or old["spec"].get("clusterIPs") != asked:
            problem = "a Service of one family has one address"
            raise _invalid(service, "spec.clusterIPs", problem, "set ipFamilyPolicy")
        del asked[1:]
    return asked


def families(service: Object, asked: Sequence[str], have: Sequence[str]) -> list[str]:
    """Return the IP families of a Service; ``have`` are the cluster's, the default one first."""
    spec = service["spec"]
    chosen = [f"IPv{_address(service, text).version}" for text in asked]
    single = spec.get("ipFamilyPolicy") == "SingleStack"
    for family in spec.get("ipFamilies") or ():
        if family not in chosen and not (single and chosen):
            chosen.append(family)
    if not chosen:
        chosen.append(have[0])
    if spec.get("ipFamilyPolicy") in ("PreferDualStack", "RequireDualStack"):
        chosen += [family for family in have if family not in chosen]
    missing = [family for family in chosen if family not in have]
    if missing or (spec.get("ipFamilyPolicy") == "RequireDualStack" and len(chosen) < 2):
        field = "spec.ipFamilies[0]" if missing else "spec.ipFamilyPolicy"
        family = missing[0] if missing else "dual stack"
        remedy = "start the API server with a service CIDR of that family"
        problem = f"this cluster is not configured for {family}"
        raise _invalid(service, field, problem, remedy)
    return chosen


def policy(spec: Object, chosen: Sequence[str]) -> str:
    """Return a Service's ipFamilyPolicy: what it says, or what its families amount to."""
    said: str = spec.get("ipFamilyPolicy") or ""
    return said or ("SingleStack" if len(chosen) < 2 else "RequireDualStack")


def check(
    service: Object, text: str, pools: Mapping[str, Sequence[Network]], taken: Set[str]
) -> str:
    """Return an address that a Service asks for, canonical. Raises InvalidObject."""
    address = _address(service, text)
    pool = pools.get(f"IPv{address.version}", ())
    if not any(address in cidr for cidr in pool):
        problem = f"{text} is not in the service CIDR {', '.join(map(str, pool))}"
    elif str(address) in taken:
        problem = f"{text} is already allocated"
    else:
        return str(address)
    remedy = "choose another, or leave it out to be given one"
    raise _invalid(service, "spec.clusterIP", problem, remedy)


def ip_address(name: str, service: Object, identity: Object) -> Object:
    """Return the IPAddress object of an address that a Service (namespace, name) takes."""
    version = ipaddress.ip_address(name).version
    labels = {
        "ipaddress.kubernetes.io/ip-family": f"IPv{version}",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    parent = {"group": "", "resource": "services", **service}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": name, "labels": labels, **identity},
        "spec": {"parentRef": parent},
    }


def _address(service: Object, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        problem = f"{text!r} is not an IP address"
        raise _invalid(service, "spec.clusterIP", problem, "") from None


def _invalid(service: Object, field: str, problem: str, remedy: str) -> errors.InvalidObject:
    meta = service["metadata"]
    name = f"Service {meta.get('namespace', '')}/{meta['name']}"
    return errors.InvalidObject(name, field, problem, remedy=remedy)
