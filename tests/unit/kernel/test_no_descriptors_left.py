"""Without a file descriptor left, nothing is taken for something that this kernel cannot do."""

import errno
import os
import resource
from collections.abc import Callable, Iterator

import pytest

from kproxy.errors import KernelError
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.execer import Execer
from kproxy.kernel.inet import Family
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.iptables import nftprobe, turn
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.links.client import Links
from kproxy.kernel.netlink import NetlinkSocket, Refusal


def _hold_turn() -> None:
    with turn.held("kproxy-test-no-descriptors"):
        raise AssertionError("held without a descriptor")


CALLS: dict[str, Callable[[], object]] = {
    "ipvs": lambda: IPVS().dump(),
    "ipset": lambda: Ipset().dump(),
    "conntrack": lambda: Conntrack().flows(Family.IPV4),
    "links": lambda: Links().exists("lo"),
    "iptables variant": lambda: nftprobe.supports(Family.IPV4),
    "tool": lambda: Execer().run(["true"]),
    "turn": _hold_turn,
    "waiting for a turn": lambda: turn.wait("kproxy-test-no-descriptors", 0),
}


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more: not even what is closed now can be had again."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("name", list(CALLS))
def test_it_is_a_failure_that_passes(name: str, no_descriptors: None) -> None:
    with pytest.raises(KernelError) as caught:
        CALLS[name]()
    assert caught.value.errno == errno.EMFILE


def test_a_tool_that_cannot_be_waited_for_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def no_handle(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", no_handle)
    with pytest.raises(KernelError, match="execute sleep: Too many open files"):
        Execer().run(["sleep", "60"])
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


@pytest.mark.parametrize(
    ("number", "answer"), [(errno.EOPNOTSUPP, False), (errno.EPERM, False), (errno.ENOBUFS, None)]
)
def test_the_kernel_says_no_or_nothing(
    monkeypatch: pytest.MonkeyPatch, number: int, answer: bool | None
) -> None:
    """Whoever took a lost answer for a no would use the other tool for the rest of its life."""
    monkeypatch.setattr(NetlinkSocket, "execute", lambda *_: {1: Refusal(number)})
    if answer is None:
        with pytest.raises(KernelError, match="nf_tables"):
            nftprobe.supports(Family.IPV4)
    else:
        assert nftprobe.supports(Family.IPV4) is answer
