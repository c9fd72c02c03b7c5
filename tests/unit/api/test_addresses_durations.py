"""Addresses, networks and durations as users write them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.api import addresses
from kproxy.api.durations import Duration


@given(st.ip_addresses())
def test_every_address_is_read_and_made_canonical(address):
    if address.version == 6 and address.ipv4_mapped:
        assert addresses.parse_address(str(address)) is None
        return
    assert addresses.parse_address(str(address)) == (str(address), address.version)


@given(st.ip_addresses(v=6))
def test_ipv6_in_full_is_made_canonical(address):
    parsed = addresses.parse_address(address.exploded.upper())
    if not address.ipv4_mapped:
        assert parsed == (str(address), 6)


@given(st.text(alphabet="0123456789.:/abcdefx ", max_size=20))
def test_only_addresses_are_read(text):
    parsed = addresses.parse_address(text)
    if parsed is not None:
        assert str(ipaddress.ip_address(text)) == parsed.text


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.01", " 10.0.0.1", "10.0.0.1\n", "1.2.3.4/32",
     "fe80::1%eth0", "::ffff:10.0.0.1", "example.org", "٣.0.0.1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    assert addresses.parse_address(text) is None


@pytest.mark.parametrize(
    ("address", "place"),
    [("10.0.0.1", "10.0.0.1:80"), ("fd00::1", "[fd00::1]:80"), ("localhost", "localhost:80")],
)
def test_ports_are_set_apart_from_ipv6(address, place):
    assert addresses.with_port(address, 80) == place


def test_networks_are_made_canonical():
    assert addresses.parse_network("10.1.2.3/8") == ("10.0.0.0/8", 4)
    assert addresses.parse_network("FD00:0::/48") == ("fd00::/48", 6)


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "/8", "x/8", "10.0.0.0/-1"]
)
def test_what_is_no_network_is_refused(text):
    assert addresses.parse_network(text) is None


@pytest.mark.parametrize(
    ("text", "use"),
    [("127.0.0.1", "loopback"), ("0.0.0.0", "unspecified"), ("169.254.1.1", "link-local"),
     ("224.0.0.1", "multicast"), ("::1", "loopback"), ("10.0.0.1", None),
     ("239.255.255.255", "multicast"), ("223.255.255.255", None), ("240.0.0.1", None),
     ("0.1.2.3", "unspecified"), ("255.255.255.255", "broadcast"), ("255.255.255.254", None),
     ("169.25.4.1", None), ("12.7.0.1", None), ("127.255.0.1", "loopback"),
     ("::", "unspecified"), ("fe80::1", "link-local"), ("ff02::1", "multicast"),
     ("fd00::1", None)],
)  # fmt: skip
def test_special_addresses_are_recognised(text, use):
    assert addresses.special_use(text) == use
    assert addresses.is_ordinary_ipv4(text) is (use is None and ":" not in text)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.01", "10.0.0", "10.0.0.1 ", "10.0.0.256", "1.2.3.4\n", "fd00::1", "web"]
)
def test_what_is_no_canonical_ipv4_address_is_not_ordinary(text):
    assert not addresses.is_ordinary_ipv4(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("0", 0), ("100ms", 0.1), ("1m30s", 90), ("1h15m30.5s", 4530.5), ("-2s", -2),
     ("+2s", 2), (".5s", 0.5), ("1.s", 1), ("2us", 2e-6), ("2µs", 2e-6), ("24h", 86400)],
)  # fmt: skip
def test_durations_are_read_as_go_does(text, seconds):
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "3", "s", "1x", "1m 30s", "--1s", "1s2", "one", "1.5", "-"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration such as"):
        Duration.parse(text)
