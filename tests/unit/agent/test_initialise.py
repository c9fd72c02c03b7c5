"""``--init-only``: the switches that need root, and nothing else."""

import errno
import io
import json
from typing import Any

import pytest

from kproxy.agent import initialise
from kproxy.agent.settings import Settings, from_config
from kproxy.api.config import (
    IPVS,
    Conntrack,
    DetectLocal,
    KubeProxyConfiguration,
    Linux,
    with_defaults,
)
from kproxy.api.durations import Duration
from kproxy.errors import KernelError, Unsupported
from kproxy.kernel.sysctl import FakeSysctl
from kproxy.logs import Log


def settings(**fields: Any) -> Settings:
    return from_config(with_defaults(KubeProxyConfiguration(hostname_override="n", **fields)))


@pytest.fixture
def log() -> tuple[Log, io.StringIO]:
    output = io.StringIO()
    return Log("proxy", "debug", output), output


@pytest.fixture
def _able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialise, "with_modules", lambda settings: None)


def test_each_mode_has_its_switches() -> None:
    ipvs = initialise.switches(settings(mode="ipvs", ipvs=IPVS(strict_arp=True)))
    assert ipvs["net/ipv4/vs/conntrack"] == "1"
    assert ipvs["net/ipv4/conf/all/arp_ignore"] == "1"
    assert ipvs["net/ipv4/ip_forward"] == "1"
    iptables = initialise.switches(settings(mode="iptables"))
    assert iptables["net/ipv4/conf/all/route_localnet"] == "1"
    nftables = initialise.switches(settings(mode="nftables"))
    assert "net/ipv4/conf/all/route_localnet" not in nftables
    for found in (iptables, nftables):
        assert not [key for key in found if "/vs/" in key]


def test_ipv6_is_forwarded_only_for_pods_that_have_it() -> None:
    key = "net/ipv6/conf/all/forwarding"
    pods = DetectLocal(cluster_cidrs=["10.0.0.0/8", "fd00::/48"])
    assert key not in initialise.switches(settings())
    assert initialise.switches(settings(detect_local=pods))[key] == "1"


@pytest.mark.usefixtures("_able")
def test_only_what_is_wrong_is_set(log: tuple[Log, io.StringIO]) -> None:
    tracking = Conntrack(udp_timeout=Duration(33), tcp_established_timeout=Duration(0))
    wanted = settings(mode="nftables", linux=Linux(conntrack=tracking))
    sysctl = FakeSysctl(
        {
            "net/ipv4/ip_forward": "1",
            "net/netfilter/nf_conntrack_udp_timeout": "30",
            "net/netfilter/nf_conntrack_tcp_timeout_established": "432000",
        }
    )
    initialise.initialise(wanted, log[0], sysctl)
    assert sysctl.written == [("net/netfilter/nf_conntrack_udp_timeout", "33")]
    (told,) = (
        line
        for line in map(json.loads, log[1].getvalue().splitlines())
        if line["msg"] == "kernel switch set"
    )
    assert (told["key"], told["value"]) == ("net/netfilter/nf_conntrack_udp_timeout", "33")


class Stubborn(FakeSysctl):
    """Refuses one switch, as a read-only /proc/sys does."""

    def set(self, key: str, value: str | int) -> None:
        if key == "net/ipv4/ip_forward":
            raise KernelError(f"write sysctl {key}", errno.EROFS, "Read-only file system")
        super().set(key, value)


@pytest.mark.usefixtures("_able")
def test_what_cannot_be_set_is_a_failure_but_keeps_nothing_else_back(
    log: tuple[Log, io.StringIO],
) -> None:
    sysctl = Stubborn(
        {"net/ipv4/ip_forward": "0", "net/netfilter/nf_conntrack_tcp_timeout_established": "1"}
    )
    with pytest.raises(KernelError, match="ip_forward: Read-only"):
        initialise.initialise(settings(mode="nftables"), log[0], sysctl)
    assert [key for key, _ in sysctl.written] == [
        "net/netfilter/nf_conntrack_tcp_timeout_established"
    ]


def test_a_kernel_that_cannot_do_the_mode_is_told(
    log: tuple[Log, io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unable:
        def supported(self) -> str:
            return "this kernel has no IPVS"

        def close(self) -> None:
            pass

    monkeypatch.setattr(initialise.base, "loader", lambda mode: lambda *_: Unable())
    with pytest.raises(Unsupported, match="mode ipvs: this kernel has no IPVS"):
        initialise.initialise(settings(mode="ipvs"), log[0], FakeSysctl({}))
