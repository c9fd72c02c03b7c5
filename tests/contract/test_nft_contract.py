"""What an nftables table promises, kept by the fake and by the kernel."""

import errno
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fresh_netns import BOTH
from nft_tables import (
    ADDRESSES,
    CLIENTS,
    DNS,
    ENDPOINTS,
    LOADS,
    ONE,
    RANGE,
    RANGES,
    RULES,
    SETS,
    TO_ONE,
    VERDICTS,
    WEB,
    base_of,
    needs_nftables,
    prepared,
    table,
)

from kproxy.backends.nftables import features
from kproxy.desired import model
from kproxy.errors import AlreadyExists, KernelError, NotFound
from kproxy.kernel.inet import Family
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.expressions import DROP, Decide, Foreign, Lookup, LookupData, Reject, goto
from kproxy.kernel.nft.fake import FakeNft
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    Chain,
    DelChain,
    DelElements,
    DelSet,
    DelTable,
    FlushChain,
    Hook,
    NftClient,
    Operation,
)
from netns.kernels import base
from netns.wait import wait_until


@pytest.fixture(params=BOTH)
def nft(request: pytest.FixtureRequest) -> Iterator[NftClient]:
    if request.param == "fake":
        yield FakeNft()
    else:
        client: Nft = request.getfixturevalue("opened")(Nft(Family.IPV4, "kube-proxy"))
        needs_nftables(client)
        yield client


def test_nothing_at_first(nft: NftClient) -> None:
    assert nft.read() is None
    assert not nft.exists()
    nft.run([])
    assert nft.read() is None


def test_features_are_tried_and_nothing_is_kept(nft: NftClient) -> None:
    assert nft.unsupported(features.trial(model.Family.IPV4)) is None
    assert not nft.exists()
    prepared(nft)
    before = table(nft)
    assert nft.unsupported(features.trial(model.Family.IPV4)) is None
    assert table(nft) == before


def test_a_missing_feature_is_named(nft: NftClient) -> None:
    trial = [
        ("tables", AddTable()),
        ("a feature from the future", AddRule("missing", (Decide(DROP),))),
        ("chains", AddChain("trial")),
    ]
    told = nft.unsupported(trial)
    assert told is not None
    assert "a feature from the future" in told
    assert "chains" not in told
    assert not nft.exists()


def test_sets_and_elements_come_back(nft: NftClient) -> None:
    prepared(nft)
    nft.run(
        [
            AddElements("ranges", RANGES, {RANGE: None}),
            AddElements("verdicts", VERDICTS, {DNS: DROP}),
        ]
    )
    found = table(nft)
    assert found.sets == SETS
    assert found.unknown == ()
    assert found.elements == {
        "verdicts": {WEB: goto("other"), DNS: DROP},
        "endpoints": {ONE: TO_ONE},
        "addresses": {b"\x0a\0\0\1": None},
        "ranges": {RANGE: None},
    }


@pytest.mark.parametrize("name", RULES)
def test_rules_come_back(nft: NftClient, name: str) -> None:
    prepared(nft)
    base = base_of(name)
    nft.run([AddChain("here", base), AddRule("here", RULES[name]), AddRule("here", ())])
    assert table(nft).chains["here"] == Chain((RULES[name], ()), base)


@pytest.mark.parametrize("family", list(Family))
def test_both_families_have_tables_of_one_name(
    request: pytest.FixtureRequest, family: Family
) -> None:
    nft = FakeNft(family)
    nft.run([AddTable(), AddChain("a"), AddRule("a", (Reject(family is Family.IPV6),))])
    assert table(nft).chains == {"a": Chain(((Reject(family is Family.IPV6),),))}


@pytest.mark.kernel
def test_families_do_not_meddle(kernel_nft: Nft) -> None:
    six = Nft(Family.IPV6, "kube-proxy")
    six.run([AddTable(), AddChain("a"), AddRule("a", (Reject(True),))])
    assert not kernel_nft.exists()
    prepared(kernel_nft)
    assert table(six).chains == {"a": Chain(((Reject(True),),))}
    six.run([DelTable()])
    assert kernel_nft.exists()
    six.close()


@pytest.mark.parametrize(
    ("operation", "kind", "number"),
    [
        (AddSet("addresses", ADDRESSES), AlreadyExists, errno.EEXIST),
        (AddSet("addresses", CLIENTS), AlreadyExists, errno.EEXIST),
        (DelSet("missing"), NotFound, errno.ENOENT),
        (AddChain("other"), AlreadyExists, errno.EEXIST),
        (DelChain("missing"), NotFound, errno.ENOENT),
        (DelChain("other"), KernelError, errno.EBUSY),
        (AddRule("missing", ()), NotFound, errno.ENOENT),
        (AddRule("other", (Decide(goto("missing")),)), NotFound, errno.ENOENT),
        (AddRule("other", (Decide(goto("front")),)), KernelError, errno.EOPNOTSUPP),
        (AddRule("other", (*LOADS, Lookup("missing", 0))), NotFound, errno.ENOENT),
        (AddRule("other", (*LOADS, LookupData("missing", 0, 3))), NotFound, errno.ENOENT),
        (AddRule("other", (Foreign("new"),)), NotFound, errno.ENOENT),
        (FlushChain("missing"), NotFound, errno.ENOENT),
        (AddElements("missing", ADDRESSES, {bytes(4): None}), NotFound, errno.ENOENT),
        (AddElements("addresses", ADDRESSES, {bytes(5): None}), KernelError, errno.EINVAL),
        (AddElements("endpoints", ENDPOINTS, {ONE: b""}), KernelError, errno.EINVAL),
        (AddElements("endpoints", ENDPOINTS, {ONE: bytes(8)}), AlreadyExists, errno.EEXIST),
        (AddElements("verdicts", VERDICTS, {WEB: DROP}), AlreadyExists, errno.EEXIST),
        (AddElements("verdicts", VERDICTS, {WEB: None}), KernelError, errno.EINVAL),
        (AddElements("verdicts", VERDICTS, {DNS: goto("missing")}), NotFound, errno.ENOENT),
        (DelElements("missing", ADDRESSES, [bytes(4)]), NotFound, errno.ENOENT),
        (DelElements("addresses", ADDRESSES, [bytes(4)]), NotFound, errno.ENOENT),
        (DelElements("addresses", ADDRESSES, [bytes(3)]), KernelError, errno.EINVAL),
    ],
)
def test_refusals_undo_the_whole_transaction(
    nft: NftClient, operation: Operation, kind: type[KernelError], number: int
) -> None:
    prepared(nft)
    before = table(nft)
    first = AddElements("addresses", ADDRESSES, {b"\x0a\0\0\2": None})
    with pytest.raises(KernelError) as refused:
        nft.run([first, operation, AddChain("last")])
    assert (type(refused.value), refused.value.errno) == (kind, number)
    assert table(nft) == before


@pytest.mark.parametrize("operation", [DelTable(), AddChain("a"), AddSet("a", ADDRESSES)])
def test_without_the_table_nothing_can_be_done(nft: NftClient, operation: Operation) -> None:
    with pytest.raises(NotFound):
        nft.run([operation])
    assert not nft.exists()


def test_a_set_named_by_a_rule_stays(nft: NftClient) -> None:
    prepared(nft)
    nft.run([AddRule("front", RULES["lookup"])])
    with pytest.raises(KernelError) as refused:
        nft.run([DelSet("addresses")])
    assert refused.value.errno == errno.EBUSY
    nft.run([FlushChain("front"), DelSet("addresses")])
    assert "addresses" not in table(nft).sets


def test_a_chain_goes_in_the_transaction_that_takes_away_what_leads_to_it(nft: NftClient) -> None:
    prepared(nft)
    nft.run([DelElements("verdicts", VERDICTS, [WEB]), DelChain("other")])
    assert "other" not in table(nft).chains


def test_an_element_changes_in_one_transaction(nft: NftClient) -> None:
    prepared(nft)
    nft.run(
        [
            AddChain("new"),
            DelElements("verdicts", VERDICTS, [WEB]),
            AddElements("verdicts", VERDICTS, {WEB: goto("new")}),
            DelChain("other"),
        ]
    )
    assert table(nft).elements["verdicts"] == {WEB: goto("new")}


def test_an_equal_element_may_come_again(nft: NftClient) -> None:
    prepared(nft)
    nft.run([AddElements("endpoints", ENDPOINTS, {ONE: TO_ONE})])
    assert table(nft).elements["endpoints"] == {ONE: TO_ONE}


def test_a_table_is_replaced_in_one_transaction(nft: NftClient) -> None:
    prepared(nft)
    nft.run([DelTable(), AddTable(), AddChain("other", BaseChain("nat", Hook.INPUT, 100))])
    found = table(nft)
    assert found.sets == {}
    assert found.chains == {"other": Chain((), BaseChain("nat", Hook.INPUT, 100))}


def test_every_change_raises_the_number_by_one(nft: NftClient) -> None:
    first = nft.generation()
    prepared(nft)
    assert nft.generation() == first + 1
    with pytest.raises(KernelError):
        nft.run([DelChain("missing")])
    table(nft)
    nft.unsupported(features.trial(model.Family.IPV4))
    nft.run([AddTable(), AddElements("endpoints", ENDPOINTS, {ONE: TO_ONE})])
    assert nft.generation() == first + 1


def test_tens_of_thousands_of_elements(nft: NftClient) -> None:
    """They go in many messages of one transaction, and come in many."""
    prepared(nft)
    endpoints = {
        WEB + number.to_bytes(4, "little"): number.to_bytes(8, "big") for number in range(20_000)
    }
    verdicts = {
        b"\x06\0\0\0" + number.to_bytes(4, "big") + b"\0\x50\0\0": goto("other")
        for number in range(5_000)
    }
    steps: list[Operation] = [
        AddElements("endpoints", ENDPOINTS, endpoints | {ONE: TO_ONE}),
        AddElements("verdicts", VERDICTS, verdicts),
    ]
    nft.run(steps)
    wanted = {"endpoints": endpoints | {ONE: TO_ONE}, "verdicts": verdicts | {WEB: goto("other")}}

    def whole() -> bool:
        found = {name: table(nft).elements[name] for name in wanted}
        assert all(found[name].items() <= wanted[name].items() for name in wanted)
        return found == wanted

    # While the kernel lets a hash table grow, a reading may lack some (linux/rhashtable.h).
    wait_until(whole, 60, "hash tables that have grown", interval=0.05)
    nft.run([DelElements("endpoints", ENDPOINTS, [key for key in endpoints if key != ONE])])
    assert table(nft).elements["endpoints"] == {ONE: TO_ONE}


MEDDLER = """
from kproxy.kernel.inet import Family
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.types import AddChain, AddTable, DelChain

with Nft(Family.IPV4, "mine") as other:
    other.run([AddTable()])
    print("begins", flush=True)
    while True:
        other.run([AddChain("a")])
        other.run([DelChain("a")])
"""


@pytest.mark.kernel
def test_a_table_is_read_while_others_change_theirs_all_the_time(kernel_nft: Nft) -> None:
    if base.clock() is base.Clock.VIRTUAL:
        pytest.skip("needs a clock that moves while programs compute: both do nothing else")
    prepared(kernel_nft)
    elements = {WEB + n.to_bytes(4, "little"): n.to_bytes(8, "big") for n in range(20_000)}
    many: list[Operation] = [AddChain(f"chain-{number}") for number in range(3000)]
    many.append(AddElements("endpoints", ENDPOINTS, elements | {ONE: TO_ONE}))
    kernel_nft.run(many)
    wanted = elements | {ONE: TO_ONE}
    wait_until(
        lambda: table(kernel_nft).elements["endpoints"] == wanted,
        60,
        "a hash table that has grown",
        interval=0.05,
    )
    command = [sys.executable, "-c", MEDDLER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as meddler:
        try:
            assert meddler.stdout is not None
            assert meddler.stdout.readline() == "begins\n"

            def disturbed() -> bool:
                before = kernel_nft.generation()
                found = table(kernel_nft)
                assert found.elements["endpoints"] == wanted
                assert len(found.chains) == 3000 + 2
                return kernel_nft.generation() > before + 10

            wait_until(disturbed, 60, "the other to change much while the table is read")
        finally:
            meddler.kill()


def test_ordered_faults_hit_the_nth_transaction() -> None:
    fake = FakeNft()
    fake.fail_run = {1: errno.ENOMEM}
    prepared(fake)
    with pytest.raises(KernelError) as refused:
        fake.run([AddChain("a")])
    assert refused.value.errno == errno.ENOMEM
    fake.run([AddChain("a")])
