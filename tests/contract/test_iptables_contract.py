"""What packet filter rules promise, kept by the fake and by both variants of the tools."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kproxy.errors import KernelError
from kproxy.kernel.execer import Completed, Execer
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import nftprobe
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.fake import FakeIptables
from kproxy.kernel.iptables.types import BUILTIN_CHAINS, Chain, IptablesClient, TableChange

JUMP = '-A PREROUTING -m comment --comment "kubernetes -j portals" -j KUBE-SERVICES'


class Recorder(Execer):
    """Counts the executions."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], stdin: bytes = b"", **options: Any) -> Completed:
        self.ran.append(tuple(argv))
        return super().run(argv, stdin, **options)


def kernel_client(request: pytest.FixtureRequest, family: Family, variant: str) -> Iptables:
    """Return a client of this variant; skip where tool or kernel lacks it."""
    request.getfixturevalue("namespace")
    client = Iptables(family, Recorder())
    named = client._named(variant)
    if named is None:
        pytest.skip(f"needs iptables-{variant}")
    if variant == "nft" and not nftprobe.supports(family):
        pytest.skip(f"needs a kernel whose nf_tables has IPv{family.value}")
    if variant == "legacy":
        done = subprocess.run([named.save, "-t", "nat"], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"needs a kernel with ip_tables: {done.stderr.decode().strip()}")
    client._tools = named
    return client


@pytest.fixture(
    params=[
        "fake",
        pytest.param((Family.IPV4, "nft"), marks=pytest.mark.kernel, id="nft-ipv4"),
        pytest.param((Family.IPV4, "legacy"), marks=pytest.mark.kernel, id="legacy-ipv4"),
        pytest.param((Family.IPV6, "nft"), marks=pytest.mark.kernel, id="nft-ipv6"),
        pytest.param((Family.IPV6, "legacy"), marks=pytest.mark.kernel, id="legacy-ipv6"),
    ]
)
def iptables(request: pytest.FixtureRequest) -> Iterator[IptablesClient]:
    if request.param == "fake":
        yield FakeIptables()
    else:
        yield kernel_client(request, *request.param)


def nat(**change: Any) -> list[TableChange]:
    return [TableChange("nat", **change)]


CHAINS = {
    "KUBE-SERVICES": ["-A KUBE-SERVICES -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB"],
    "KUBE-SVC-WEB": [
        "-A KUBE-SVC-WEB -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-SVC-WEB -m statistic --mode random --probability 0.50000000000 -j RETURN",
        "-A KUBE-SVC-WEB",
    ],
}


def test_untouched_tables_have_empty_builtin_chains(iptables: IptablesClient) -> None:
    saved = iptables.save("filter", "nat")
    assert saved == {
        table: {chain: Chain(policy="ACCEPT") for chain in BUILTIN_CHAINS[table]}
        for table in ("filter", "nat")
    }


def test_rules_come_back_word_for_word(iptables: IptablesClient) -> None:
    """In the form of iptables-save, rules are compared as text."""
    iptables.restore(nat(replace=CHAINS, insert=[JUMP]))
    table = iptables.save("nat")["nat"]
    assert {name: list(table[name].rules) for name in CHAINS} == CHAINS
    assert table["PREROUTING"] == Chain((JUMP,), "ACCEPT")
    assert table["KUBE-SERVICES"].policy is None


def test_replacing_a_chain_leaves_the_others(iptables: IptablesClient) -> None:
    iptables.restore(nat(replace=CHAINS, insert=[JUMP]))
    before = iptables.save("nat")["nat"]
    iptables.restore(nat(replace={"KUBE-SVC-WEB": []}))
    assert iptables.save("nat")["nat"] == {**before, "KUBE-SVC-WEB": Chain()}


def test_the_same_twice_is_once(iptables: IptablesClient) -> None:
    iptables.restore(nat(replace=CHAINS))
    before = iptables.save("nat")
    iptables.restore(nat(replace=CHAINS))
    assert iptables.save("nat") == before


def test_builtin_chains_belong_to_everybody(iptables: IptablesClient) -> None:
    """Rules go in front, in the order given, or behind; each is taken out singly."""
    foreign, behind = "-A PREROUTING -p udp -j ACCEPT", "-A PREROUTING -p icmp -j ACCEPT"
    if isinstance(iptables, Iptables) and iptables._family is Family.IPV6:
        behind = "-A PREROUTING -p sctp -j ACCEPT"
    two = "-A PREROUTING -p tcp -j KUBE-SERVICES"
    iptables.restore(nat(append=[foreign]))
    iptables.restore(nat(replace=CHAINS, insert=[JUMP, two], append=[behind]))
    assert iptables.save("nat")["nat"]["PREROUTING"].rules == (JUMP, two, foreign, behind)
    iptables.restore(nat(remove=[two, behind]))
    assert iptables.save("nat")["nat"]["PREROUTING"].rules == (JUMP, foreign)


def test_chains_that_refer_to_each_other_are_deleted_together(iptables: IptablesClient) -> None:
    iptables.restore(nat(replace=CHAINS, insert=[JUMP]))
    iptables.restore(nat(remove=[JUMP], delete=["KUBE-SERVICES", "KUBE-SVC-WEB"]))
    assert set(iptables.save("nat")["nat"]) == set(BUILTIN_CHAINS["nat"])


def test_deleting_an_absent_chain_is_no_error(iptables: IptablesClient) -> None:
    iptables.restore(nat(delete=["KUBE-ABSENT"]))
    assert "KUBE-ABSENT" not in iptables.save("nat")["nat"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"replace": {"KUBE-A": ["-A KUBE-A -j KUBE-MISSING"]}}, None),
        ({"replace": {"KUBE-A": []}, "append": ["-A KUBE-MISSING -j ACCEPT"]}, "KUBE-MISSING"),
        ({"replace": {"KUBE-A": []}, "insert": ["-A KUBE-MISSING -j ACCEPT"]}, "KUBE-MISSING"),
        ({"replace": {"KUBE-A": []}, "remove": ["-A PREROUTING -j ACCEPT"]}, "PREROUTING"),
        ({"replace": {"KUBE-A": []}, "delete": ["KUBE-SVC-WEB"]}, None),
        ({"replace": {"KUBE-A": [], "K" * 29: []}}, "K" * 29),
    ],
    ids=["dangling", "append", "insert", "remove", "referenced", "name"],
)
def test_a_table_takes_all_or_nothing(
    iptables: IptablesClient, change: dict[str, object], line: str | None
) -> None:
    iptables.restore(nat(replace=CHAINS, insert=[JUMP]))
    before = iptables.save("nat")
    with pytest.raises(KernelError) as caught:
        iptables.restore(nat(**change))
    assert "line" in str(caught.value)
    assert line is None or line in str(caught.value)
    assert iptables.save("nat") == before


@pytest.mark.parametrize(
    "change",
    [
        {"replace": {"PREROUTING": []}},
        {"delete": ["OUTPUT"]},
        {"replace": {"KUBE-A": ["-A KUBE-B -j ACCEPT"]}},
        {"append": ["-I PREROUTING -j ACCEPT"]},
    ],
)
def test_mistakes_of_the_caller(iptables: IptablesClient, change: dict[str, object]) -> None:
    before = iptables.save("nat")
    with pytest.raises(ValueError, match=r"chain|form"):
        iptables.restore(nat(**change))
    assert iptables.save("nat") == before


def test_tables_before_a_refused_one_are_changed(iptables: IptablesClient) -> None:
    good = TableChange("filter", replace={"KUBE-A": ["-A KUBE-A -j ACCEPT"]})
    bad = TableChange("nat", replace={"KUBE-A": ["-A KUBE-A -j KUBE-MISSING"]})
    with pytest.raises(KernelError):
        iptables.restore([good, bad])
    saved = iptables.save("filter", "nat")
    assert saved["filter"]["KUBE-A"] == Chain(("-A KUBE-A -j ACCEPT",))
    assert "KUBE-A" not in saved["nat"]


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_one_execution_each(request: pytest.FixtureRequest, variant: str) -> None:
    client = kernel_client(request, Family.IPV4, variant)
    recorder = client._execer
    assert isinstance(recorder, Recorder)
    client.restore([])
    assert recorder.ran == []
    client.restore(nat(replace=CHAINS))
    client.save("filter", "nat")
    assert [Path(argv[0]).name.rsplit("-", 1)[1] for argv in recorder.ran] == ["restore", "save"]


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_a_refused_line_is_named(request: pytest.FixtureRequest, variant: str) -> None:
    client = kernel_client(request, Family.IPV4, variant)
    rule = "-A KUBE-A -p tcp --bogus 1 -j ACCEPT"
    with pytest.raises(KernelError, match="bogus") as caught:
        client.restore(nat(replace={"KUBE-A": ["-A KUBE-A -j RETURN", rule]}))
    assert str(caught.value).startswith(f"iptables-{variant}-restore: line 4 ({rule}): ")


@pytest.mark.kernel
@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_counters_of_other_rules_are_kept(request: pytest.FixtureRequest, variant: str) -> None:
    client = kernel_client(request, Family.IPV4, variant)
    counting = "-A OUTPUT -p udp -m udp --dport 9 -j ACCEPT"
    client.restore([TableChange("filter", append=[counting])])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(3):
            sock.sendto(b"x", ("127.0.0.1", 9))
    client.restore([TableChange("filter", replace={"KUBE-A": ["-A KUBE-A -j RETURN"]})])
    listing = subprocess.run([client.tools().save, "-c"], check=True, capture_output=True)
    (line,) = (at for at in listing.stdout.decode().splitlines() if at.endswith(counting))
    assert line.startswith("[3:")


@pytest.mark.kernel
@pytest.mark.needs_tool("iptables-save", "iptables-restore")
def test_the_tools_that_are_chosen_work(namespace: None) -> None:
    """Also where the tools in PATH are those of a variant that the kernel does not serve."""
    client = Iptables()
    assert client.supported() is None
    client.restore(nat(replace=CHAINS))
    assert set(CHAINS) <= set(client.save("nat")["nat"])
    assert client.supported() is None


@pytest.mark.kernel
@pytest.mark.needs_tool("nft")
@pytest.mark.parametrize("family", list(Family))
def test_asking_for_nf_tables_leaves_nothing_behind(namespace: None, family: Family) -> None:
    if not nftprobe.supports(family):
        pytest.skip(f"needs a kernel whose nf_tables has IPv{family.value}")
    listing = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True)
    assert listing.stdout == b""


@pytest.mark.kernel
@pytest.mark.needs_tool("nft")
def test_a_table_with_rules_that_the_tool_cannot_express_is_named(
    request: pytest.FixtureRequest,
) -> None:
    client = kernel_client(request, Family.IPV4, "nft")
    client.restore([TableChange("filter", replace={"KUBE-A": ["-A KUBE-A -j RETURN"]})])
    rule = "add rule ip filter KUBE-A numgen inc mod 2 0 counter"
    if subprocess.run(["nft", rule], check=False, capture_output=True).returncode:
        pytest.skip("needs a kernel whose nf_tables has numgen")
    assert client.save("nat")
    with pytest.raises(KernelError, match="table filter") as caught:
        client.save("filter", "nat")
    assert "nft list table ip filter" in caught.value.remedy


def test_the_fake_refuses_to_order() -> None:
    fake = FakeIptables()
    fake.fail_restore = 1
    with pytest.raises(KernelError):
        fake.restore(nat(replace=CHAINS))
    fake.reject = ("MARK",)
    with pytest.raises(KernelError, match="MARK"):
        fake.restore(nat(replace=CHAINS))
    fake.reject = ()
    fake.restore(nat(replace=CHAINS))
    assert "KUBE-SERVICES" in fake.save("nat")["nat"]
