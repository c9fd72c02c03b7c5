"""A node in nftables mode on a fake kernel, and what was written to it."""

from fake_node import FakeNode

from kproxy.desired.model import Family, State
from kproxy.kernel.nft.types import Operation

A, B = "10.128.0.1", "10.128.0.2"


def fresh(state: State) -> FakeNode:
    node = FakeNode()
    assert node.backend("nftables").sync(state).failures == ()
    return node


def written(node: FakeNode) -> list[Operation]:
    """Return what the last transaction was."""
    return list(node.nft[Family.IPV4].written[-1])
