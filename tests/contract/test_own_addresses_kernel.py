"""The node's own addresses, read from the kernel, and news of them."""

import ipaddress
import threading
from collections.abc import Iterator

import pytest

from kproxy.errors import Unsupported
from kproxy.kernel.inet import Family
from kproxy.kernel.links.client import Links
from kproxy.kernel.links.own import AddressChanges, own_addresses

pytestmark = pytest.mark.kernel

SERVICES = "kube-ipvs0"
interface = ipaddress.ip_interface


@pytest.fixture
def links(namespace: None) -> Iterator[Links]:
    with Links() as client:
        yield client


def test_loopback_and_link_local_addresses_are_none_of_them(links: Links) -> None:
    assert own_addresses(SERVICES) == {Family.IPV4: (), Family.IPV6: ()}
    added = ["192.0.2.1/24", "192.0.2.1/32", "169.254.1.1/16", "fd00::1/64"]
    assert links.add_addresses("lo", [interface(text) for text in added]) == [None] * 4
    assert own_addresses(SERVICES) == {Family.IPV4: ("192.0.2.1",), Family.IPV6: ("fd00::1",)}


def test_addresses_of_services_are_none_of_them(links: Links) -> None:
    try:
        links.ensure_dummy(SERVICES, [interface("10.96.0.1/32"), interface("fd00:96::1/128")])
    except Unsupported as error:
        pytest.skip(f"needs a kernel that can: {error}")
    assert own_addresses(SERVICES) == {Family.IPV4: (), Family.IPV6: ()}
    assert own_addresses("missing")[Family.IPV4] == ("10.96.0.1",)


def test_news_of_an_address(links: Links) -> None:
    changes = AddressChanges(SERVICES)
    heard = threading.Event()

    def listen() -> None:
        changes.wait(0)
        heard.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    links.add_addresses("lo", [interface("192.0.2.1/24")])
    assert heard.wait(60)
    thread.join(60)
    heard.clear()
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    links.remove_addresses("lo", [interface("192.0.2.1/24")])
    assert heard.wait(60)
    thread.join(60)
    changes.close()


def test_more_news_than_there_is_room_for(links: Links) -> None:
    changes = AddressChanges(SERVICES)
    many = [interface(f"192.0.2.{last}/32") for last in range(1, 255)]
    assert links.add_addresses("lo", many) == [None] * len(many)
    changes.wait(0)
    assert set(own_addresses(SERVICES)[Family.IPV4]) == {str(one.ip) for one in many}
    changes.close()
