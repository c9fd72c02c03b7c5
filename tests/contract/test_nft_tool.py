"""What others do with the ``nft`` program: it lists our table, we tell what they did to it."""

import json
import subprocess

import pytest
from nft_tables import RANGE, RANGES, RULES, base_of, prepared, table

from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.expressions import Foreign
from kproxy.kernel.nft.types import AddChain, AddElements, AddRule


@pytest.mark.kernel
@pytest.mark.needs_tool("nft")
def test_a_table_that_sleeps_is_told(kernel_nft: Nft) -> None:
    """It looks as ever, and packets pass it by."""
    prepared(kernel_nft)
    assert table(kernel_nft).unknown == ()
    subprocess.run(["nft", "add table ip kube-proxy { flags dormant; }"], check=True)
    assert table(kernel_nft).unknown == ("table flags 0x1",)


@pytest.mark.kernel
@pytest.mark.needs_tool("nft")
@pytest.mark.parametrize("name", [name for name in RULES if name not in ("nothing", "status")])
def test_the_tool_lists_the_rule(kernel_nft: Nft, name: str) -> None:
    """An administrator's ``nft list`` must not fail on our account: it fails for all tables."""
    prepared(kernel_nft)
    kernel_nft.run([AddChain("here", base_of(name)), AddRule("here", RULES[name])])
    told = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.kernel
@pytest.mark.needs_tool("nft")
def test_what_others_put_into_the_table_is_told(kernel_nft: Nft) -> None:
    prepared(kernel_nft)
    script = """
        add set ip kube-proxy strange { type ether_addr; }
        add set ip kube-proxy slow { type ipv4_addr; timeout 1h; }
        add chain ip kube-proxy closed { type filter hook input priority 0; policy drop; }
        add rule ip kube-proxy front counter accept
        add table ip6 kube-proxy
        add chain ip6 kube-proxy six
    """
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    found = table(kernel_nft)
    assert set(found.unknown) == {"set strange", "set slow", "chain closed"}
    (rule,) = found.chains["front"].rules
    assert rule[0] == Foreign("counter")
    assert "six" not in found.chains


@pytest.mark.kernel
@pytest.mark.needs_tool("nft")
def test_the_tool_reads_an_element_as_it_was_meant(kernel_nft: Nft) -> None:
    prepared(kernel_nft)
    kernel_nft.run([AddElements("ranges", RANGES, {RANGE: None})])
    command = ["nft", "-j", "list", "table", "ip", "kube-proxy"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(told.stdout)["nftables"]
    elements = {
        one["name"]: one["elem"]
        for row in rows
        for one in [row.get("set") or row.get("map")]
        if one and "elem" in one
    }
    (pair,) = elements["verdicts"]
    assert pair == [{"concat": ["tcp", "10.96.0.10", 80]}, {"goto": {"target": "other"}}]
    (endpoint,) = elements["endpoints"]
    assert endpoint[1] == {"concat": ["10.128.0.5", 8080]}
    (sources,) = elements["ranges"]
    prefix = {"prefix": {"addr": "198.51.100.0", "len": 24}}
    assert sources == {"concat": ["tcp", "10.96.0.10", 80, prefix]}
