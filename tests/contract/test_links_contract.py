"""What devices and addresses promise, kept by the fake and by the kernel."""

import errno
import ipaddress
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_netns import BOTH

from kproxy.errors import AlreadyExists, KernelError, NotFound, Unsupported
from kproxy.kernel.links.client import Links
from kproxy.kernel.links.fake import FakeLinks
from kproxy.kernel.links.types import DeviceAddress, LinksClient, with_prefix
from netns.wait import wait_until

interface = ipaddress.ip_interface
ip = ipaddress.ip_address
DEVICE = "kube-ipvs0"
KEEP = Path("/proc/sys/net/ipv6/conf/all/keep_addr_on_down")
SOME = [interface("10.96.0.1/32"), interface("10.96.0.10/32"), interface("fd00:96::1/128")]


@pytest.fixture(params=BOTH)
def links(request: pytest.FixtureRequest) -> Iterator[LinksClient]:
    if request.param == "fake":
        fake = FakeLinks()
        fake.put("lo", [interface("127.0.0.1/8"), interface("::1/128")])
        yield fake
    else:
        client = request.getfixturevalue("opened")(Links())
        yield client


@pytest.fixture
def device(links: LinksClient) -> str:
    """A dummy device; skip where the kernel has none."""
    try:
        links.ensure_dummy(DEVICE)
    except Unsupported as error:
        pytest.skip(f"needs a kernel that can: {error}")
    return DEVICE


def test_loopback_and_its_addresses(links: LinksClient) -> None:
    assert links.exists("lo")
    assert links.addresses("lo") == {interface("127.0.0.1/8"), interface("::1/128")}
    assert links.host_addresses("lo") == {ip("::1").packed}
    assert links.local_addresses() == {
        DeviceAddress("lo", interface("127.0.0.1/8")),
        DeviceAddress("lo", interface("::1/128")),
    }


@pytest.mark.parametrize("name", ["missing", "a-name-longer-than-any-device"])
def test_missing_devices(links: LinksClient, name: str) -> None:
    assert not links.exists(name)
    for call in (
        lambda: links.addresses(name),
        lambda: links.host_addresses(name),
        lambda: links.add_addresses(name, SOME),
        lambda: links.remove_addresses(name, SOME),
        lambda: links.remove(name),
        lambda: links.is_up(name),
    ):
        with pytest.raises(NotFound, match=name):
            call()


def test_addresses_come_and_go_on_any_device(links: LinksClient) -> None:
    assert links.add_addresses("lo", SOME) == [None] * 3
    assert set(SOME) <= links.addresses("lo")
    assert {address.packed for address in SOME} <= links.host_addresses("lo")
    results = links.add_addresses("lo", [SOME[0], interface("10.96.0.2/32"), SOME[2]])
    assert [type(result) for result in results] == [AlreadyExists, type(None), AlreadyExists]
    results = links.remove_addresses("lo", [SOME[0], SOME[0], SOME[2]])
    assert [type(result) for result in results] == [type(None), NotFound, type(None)]
    assert results[1] is not None
    assert str(SOME[0]) in str(results[1])
    assert links.addresses("lo") == {
        *(interface("127.0.0.1/8"), interface("::1/128")),
        *(interface("10.96.0.2/32"), SOME[1]),
    }


def test_ipv6_link_local_addresses_are_left_out(links: LinksClient) -> None:
    """The kernel gives one to every device: nobody wanted it, so nobody shall miss it."""
    before = links.addresses("lo"), links.host_addresses("lo"), links.local_addresses()
    own = [interface("fe80::5/64"), interface("fe80::6/128")]
    assert links.add_addresses("lo", own) == [None, None]
    assert (links.addresses("lo"), links.host_addresses("lo"), links.local_addresses()) == before
    assert links.add_addresses("lo", [interface("169.254.20.10/32")]) == [None]
    assert interface("169.254.20.10/32") in links.addresses("lo")


def test_hundreds_of_addresses(links: LinksClient) -> None:
    many = [ip(f"10.96.{n >> 8}.{n & 255}") for n in range(1500)]
    assert links.add_addresses("lo", many) == [None] * 1500
    assert {with_prefix(one) for one in many} <= links.addresses("lo")
    assert {one.packed for one in many} <= links.host_addresses("lo")
    assert links.remove_addresses("lo", many) == [None] * 1500
    assert links.addresses("lo") == {interface("127.0.0.1/8"), interface("::1/128")}


def test_a_device_of_another_kind_is_left_alone(links: LinksClient) -> None:
    with pytest.raises(KernelError, match="lo"):
        links.ensure_dummy("lo", SOME)
    assert links.addresses("lo") == {interface("127.0.0.1/8"), interface("::1/128")}


def test_dummy_devices(links: LinksClient, device: str) -> None:
    links.ensure_dummy(device, SOME)
    assert links.addresses(device) == set(SOME)
    links.ensure_dummy(device, [*SOME, interface("10.96.0.3/32")])
    assert links.addresses(device) == {*SOME, interface("10.96.0.3/32")}
    assert links.is_up(device)
    assert DeviceAddress(device, SOME[0]) in links.local_addresses()
    links.remove(device)
    assert not links.exists(device)


@pytest.mark.kernel
@pytest.mark.needs_module("dummy")
def test_a_new_dummy_device_is_up_and_answers(namespace: None) -> None:
    """A packet to each of its addresses is for this node."""
    with Links() as links:
        links.ensure_dummy(DEVICE, SOME)
        assert links.device(DEVICE).up
        for address in SOME:
            route = subprocess.run(
                ["ip", "route", "get", str(address.ip)], check=True, capture_output=True
            )
            assert route.stdout.startswith(b"local ")


@pytest.mark.kernel
@pytest.mark.needs_module("dummy")
def test_a_device_that_is_down_is_brought_up(namespace: None) -> None:
    subprocess.run(["ip", "link", "add", DEVICE, "type", "dummy"], check=True)
    subprocess.run(["ip", "address", "add", "10.96.0.1/32", "dev", DEVICE], check=True)
    with Links() as links:
        links.ensure_dummy(DEVICE, SOME)
        assert links.device(DEVICE).up
        assert links.addresses(DEVICE) == set(SOME)


@pytest.mark.kernel
@pytest.mark.needs_module("dummy")
def test_a_device_that_was_set_down_answers_again(namespace: None) -> None:
    """IPv4 does not mind; IPv6 addresses that stay on it are listed, but nothing reaches them."""

    def local() -> list[bool]:
        commands = [["ip", "route", "get", str(address.ip)] for address in SOME]
        done = [subprocess.run(one, check=False, capture_output=True) for one in commands]
        return [one.stdout.startswith(b"local ") for one in done]

    KEEP.write_text("1")
    with Links() as links:
        links.ensure_dummy(DEVICE, SOME)
        wait_until(lambda: all(local()), 60, "the addresses of the device are not local")
        subprocess.run(["ip", "link", "set", DEVICE, "down"], check=True)
        assert not links.is_up(DEVICE)
        assert links.addresses(DEVICE) == set(SOME)
        assert local() == [True, True, False]
        links.ensure_dummy(DEVICE, SOME)
        assert links.is_up(DEVICE)
        wait_until(lambda: all(local()), 60, "the addresses of the device are not local")


@pytest.mark.kernel
@pytest.mark.needs_module("dummy")
def test_an_adopted_device_costs_no_import(namespace: None) -> None:
    """A restarted proxy finds its device, and must not pay for what makes one."""
    subprocess.run(["ip", "link", "add", DEVICE, "type", "dummy"], check=True)
    program = (
        "import sys; from kproxy.kernel.links.client import Links;"
        f"Links().ensure_dummy('{DEVICE}'); sys.exit('pyroute2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_fake_can_lack_dummies_and_refuse() -> None:
    fake = FakeLinks()
    fake.no_dummy = True
    with pytest.raises(Unsupported):
        fake.ensure_dummy(DEVICE)
    fake.no_dummy = False
    fake.ensure_dummy(DEVICE)
    fake.fail_write = {1: errno.ENOMEM}
    results = fake.add_addresses(DEVICE, SOME)
    assert [result and result.errno for result in results] == [None, errno.ENOMEM, None]
