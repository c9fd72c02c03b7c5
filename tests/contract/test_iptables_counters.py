"""How many packets met each rule: what the kernel is asked, and what ``iptables-save -c`` says."""

import re
import socket
import subprocess

import pytest
from test_iptables_contract import CHAINS, JUMP, iptables, kernel_client, nat

from kproxy.kernel.inet import Family
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.types import IptablesClient, TableChange

__all__ = ["iptables"]

COUNTING = {
    "KUBE-A": [
        "-A KUBE-A -p tcp -m tcp --dport 9 -j DROP",
        "-A KUBE-A -p udp -m udp --dport 9 -j KUBE-AB",
        "-A KUBE-A -p udp -m udp --dport 9",
        "-A KUBE-A -p udp -m udp --dport 10 -j DROP",
    ],
    "KUBE-AB": ["-A KUBE-AB -p udp", "-A KUBE-AB -p udp -m udp --dport 9 -j RETURN"],
    "KUBE-ABC": [],
}
LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}


def test_every_rule_of_a_chain_has_a_counter(iptables: IptablesClient) -> None:
    iptables.restore(nat(replace={**CHAINS, "KUBE-EMPTY": []}, insert=[JUMP]))
    assert iptables.packets("nat", "KUBE-SERVICES") == (0,)
    assert iptables.packets("nat", "KUBE-SVC-WEB") == (0, 0, 0)
    assert iptables.packets("nat", "KUBE-EMPTY") == ()
    assert iptables.packets("nat", "KUBE-SVC") == ()
    assert iptables.packets("filter", "KUBE-SERVICES") == ()


@pytest.mark.kernel
@pytest.mark.needs_tool("ip")
@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_packets_are_counted_as_the_tool_says(
    request: pytest.FixtureRequest, variant: str, family: Family
) -> None:
    client = kernel_client(request, family, variant)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    client.restore([TableChange("filter", replace=COUNTING, insert=["-A OUTPUT -j KUBE-A"])])
    send(family, {9: 3, 11: 1, 10: 2})
    assert client.packets("filter", "KUBE-A") == (0, 3, 3, 2)
    assert client.packets("filter", "KUBE-AB") == (3, 3)
    assert client.packets("filter", "KUBE-ABC") == ()
    client.restore([TableChange("filter", replace={"KUBE-ABC": ["-A KUBE-ABC -p udp"]})])
    send(family, {9: 1})
    assert client.packets("filter", "KUBE-A") == (0, 4, 4, 2)
    for chain in COUNTING:
        assert client.packets("filter", chain) == as_the_tool_says(client, chain)


def send(family: Family, counts: dict[int, int]) -> None:
    with socket.socket(family.af, socket.SOCK_DGRAM) as sock:
        for port, count in counts.items():
            for _ in range(count):
                try:
                    sock.sendto(b"x", (LOOPBACK[family], port))
                except PermissionError:
                    continue  # The rule that drops it has counted it.


def as_the_tool_says(client: Iptables, chain: str) -> tuple[int, ...]:
    listing = subprocess.run([client.tools().save, "-c"], check=True, capture_output=True)
    found = re.findall(rf"^\[(\d+):\d+\] -A {chain} ", listing.stdout.decode(), re.MULTILINE)
    return tuple(map(int, found))
