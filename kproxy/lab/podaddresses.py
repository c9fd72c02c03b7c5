"""The addresses of a node's pods, none of which is ever given out twice.

A replacement never gets its predecessor's address: packets still on their way to the old one must
not reach the new one, or a loss would go unseen.
"""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from kproxy import errors
from kproxy.lab import plan, site

Place = plan.NodePlan | site.SiteNode


def next_number(node: Place, counter: Path) -> int:
    """Return the number of an address of the node's range that no pod has had before.

    ``counter`` is the file that keeps count, also of a kubelet that is killed meanwhile. Raises
    KproxyError if there is none left.
    """
    try:
        number = int(counter.read_text())
    except FileNotFoundError:
        number = 2
    if number >= plan.CLIENT_OFFSET:
        raise errors.KproxyError(
            f"{node.name}: all addresses of {node.pod_cidr} were used",
            remedy="run fewer trials or pods, or more nodes",
        )
    partial = counter.with_name(f".{counter.name}.new")
    partial.write_text(str(number + 1))
    partial.replace(counter)
    return number


def addresses(node: Place, number: int) -> tuple[IPv4Address, IPv6Address | None]:
    """Return the addresses of the pod of that number; 0: of the node itself."""
    if number == 0:
        return node.address, node.address6
    range6 = node.pod_cidr6
    address6 = range6.network_address + number if range6 else None
    return node.pod_cidr.network_address + number, address6
