"""A sync is paid for when it is known what it will write, and before it writes."""

from typing import Any

import pytest
from fake_node import FakeNode, wanted, web

from kproxy import costs
from kproxy.desired.build import NodeSettings
from kproxy.desired.model import Family
from kproxy.errors import KernelError
from kproxy.proxier import Proxier


class Payments(costs.Costs):
    """Notes what is paid, and what the kernel held at that moment."""

    def __init__(self, node: FakeNode) -> None:
        super().__init__("proxy")
        self.node = node
        self.places: list[str] = []
        self.contents: list[Any] = []

    @property
    def modelled(self) -> bool:
        return True

    def pay(self, place: str, *, mode: str = "", services: int = 0, endpoints: int = 0) -> None:
        self.places.append(place)
        self.contents.append(self.node.contents())
        self.size = mode, services, endpoints


@pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
def test_a_life_of_a_proxy(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode()
    state = wanted(web("10.128.0.1", "10.128.0.2"))

    def proxy() -> tuple[Any, Payments]:
        paid = Payments(node)
        settings = NodeSettings(family=Family.IPV4, node="n")
        made = Proxier(settings, lambda family: node.backend(mode), paid)
        monkeypatch.setattr(made, "wanted", lambda: state)
        return made, paid

    first, paid = proxy()
    empty = node.contents()
    first.reread()
    assert not first.sync().failed
    assert paid.places == [costs.SYNC_FULL]
    assert paid.size == (mode, 1, 2)
    assert paid.contents == [empty]
    assert node.contents() != empty

    first.sync()
    assert paid.places == [costs.SYNC_FULL]
    before = node.contents()
    state = wanted(web("10.128.0.1"))
    first.sync()
    assert paid.places == [costs.SYNC_FULL, costs.SYNC_PARTIAL]
    assert paid.contents[-1] == before

    second, paid = proxy()
    second.sync()
    assert paid.places == [costs.SYNC_ADOPT]


def test_a_first_sync_that_failed_is_still_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode()
    paid = Payments(node)
    made = Proxier(
        NodeSettings(family=Family.IPV4, node="n"), lambda family: node.backend("iptables"), paid
    )
    monkeypatch.setattr(made, "wanted", lambda: wanted(web("10.128.0.1")))

    def refuse(changes: object) -> None:
        raise KernelError("iptables-restore", 5, "refused")

    with monkeypatch.context() as broken:
        broken.setattr(node.iptables, "restore", refuse)
        assert made.sync().failed
    assert not made.sync().failed
    assert paid.places == [costs.SYNC_FULL, costs.SYNC_FULL]
