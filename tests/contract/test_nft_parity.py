"""Random transactions on the fake and on the kernel: the same answers, the same table.

A fake that agrees to more, or to less, than the kernel would let a wrong backend pass its tests.
"""

from collections.abc import Sequence

import pytest
from fresh_netns import fresh_namespace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kproxy.backends.nftables import features
from kproxy.desired import model
from kproxy.errors import KernelError
from kproxy.kernel.inet import Family
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.expressions import (
    DROP,
    Base,
    Decide,
    Lookup,
    LookupVerdict,
    Payload,
    goto,
    jump,
)
from kproxy.kernel.nft.fake import FakeNft
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    DelChain,
    DelElements,
    DelSet,
    DelTable,
    Field,
    FlushChain,
    Hook,
    NftClient,
    Operation,
    SetSpec,
)

pytestmark = pytest.mark.kernel

ADDRESSES = SetSpec((Field.IPV4,))
PORTS = SetSpec((Field.IPV4,), (Field.PORT,))
VERDICTS = SetSpec((Field.IPV4,), verdicts=True)

chains = st.sampled_from(["a", "b", "c"])
keys = st.sampled_from([bytes([10, 0, 0, number]) for number in range(3)])
specs = {"s": ADDRESSES, "m": PORTS, "v": VERDICTS}
sets = st.sampled_from(sorted(specs))
# Only to "c", which itself leads nowhere: the kernel looks for loops, the fake does not.
verdicts = st.sampled_from([DROP, goto("c")])
data = {
    "s": st.none(),
    "m": st.sampled_from([b"\0\x50\0\0", b"\1\xbb\0\0"]),
    "v": verdicts,
}
load = Payload(Base.NETWORK, 12, 4, 0)
rules = st.sampled_from(
    [
        (load, Lookup("s", 0), Decide(DROP)),
        (load, LookupVerdict("v", 0)),
        (Decide(goto("c")),),
        (Decide(jump("c")),),
        (Decide(DROP),),
        (),
    ]
)
bases = st.sampled_from([None, None, BaseChain("filter", Hook.INPUT, 0)])


@st.composite
def added(draw: st.DrawFn) -> AddElements:
    name = draw(sets)
    return AddElements(
        name, specs[name], draw(st.dictionaries(keys, data[name], min_size=1, max_size=2))
    )


@st.composite
def removed(draw: st.DrawFn) -> DelElements:
    name = draw(sets)
    return DelElements(name, specs[name], draw(st.lists(keys, min_size=1, max_size=2)))


operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(AddTable),
    st.builds(DelTable),
    sets.map(lambda name: AddSet(name, specs[name])),
    st.builds(DelSet, sets),
    st.builds(AddChain, st.sampled_from(["a", "b"]), bases),
    st.just(AddChain("c")),
    st.builds(DelChain, chains),
    st.builds(AddRule, st.sampled_from(["a", "b"]), rules),
    st.builds(FlushChain, chains),
    added(),
    removed(),
)
transactions = st.lists(operations, min_size=1, max_size=4)
START: list[Operation] = [
    AddTable(),
    *[AddSet(name, spec) for name, spec in specs.items()],
    AddChain("a"),
    AddChain("c"),
]


def outcome(client: NftClient, transaction: Sequence[Operation]) -> tuple[str, int]:
    try:
        client.run(transaction)
    except KernelError as error:
        return type(error).__name__, error.errno
    return "done", 0


@given(life=st.lists(transactions, max_size=6))
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_fake_and_kernel_agree(life: list[list[Operation]]) -> None:
    with fresh_namespace(), Nft(Family.IPV4, "kube-proxy") as kernel:
        if why := kernel.unsupported(features.trial(model.Family.IPV4)):
            pytest.skip(f"needs a kernel that can: {why}")
        fake = FakeNft()
        for transaction in [START, *life]:
            first, second = kernel.generation(), fake.generation()
            said = outcome(kernel, transaction)
            assert (transaction, outcome(fake, transaction)) == (transaction, said)
            assert kernel.read() == fake.read()
            assert kernel.generation() - first == fake.generation() - second
