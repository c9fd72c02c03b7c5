"""What a URL, a name or a token has to be, and what is told of one that cannot be used."""

import pytest

from kproxy.api import core
from kproxy.client import rest
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest, Unreachable
from kproxy.errors import KproxyError, UsageError


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:99999", "out of range"),
        ("http://127.0.0.1:abc", "abc"),
        ("http://127.0.0.1:0", "port 0"),
        ("http://[::1", "IPv6"),
        ("http://a..b:80", "'a..b' is no name"),
        ("http://", "names no host"),
        (f"http://{'x' * 64}.org", "is no name"),
        ("ftp://x", "does not begin with"),
        ("10.0.0.1:6443", "does not begin with"),
        ("http://a b", "is no name"),
    ],
)
def test_what_is_no_url_is_the_users_mistake(url, told):
    with pytest.raises(UsageError, match=told) as caught:
        Rest(Access(server=url))
    assert repr(url) in caught.value.message
    assert "https://host:port" in caught.value.remedy


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://10.0.0.1", ("10.0.0.1", 443)),
        ("http://[fd00::1]:6443/x/", ("fd00::1", 6443)),
        ("https://api.example.org.:1", ("api.example.org.", 1)),
        ("http://my_host", ("my_host", 80)),
    ],
)
def test_hosts_and_ports_of_urls(url, place):
    assert rest._place(url)[1:3] == place


def test_a_name_that_cannot_be_asked_for_is_unreachable():
    with Rest(Access(server="http://x")) as api:
        api._host = "a..b"
        with pytest.raises(Unreachable, match=r"no address for a\.\.b"):
            api.list(core.Service)


@pytest.mark.parametrize("token", ["caf\xe9", "two\nlines"])
def test_a_token_that_http_cannot_carry_is_told(token):
    with (
        Rest(Access(server="http://127.0.0.1:1", token=token)) as api,
        pytest.raises(KproxyError, match="token"),
    ):
        api.list(core.Service)
