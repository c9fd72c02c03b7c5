"""Tracked UDP flows whose service leads them to an endpoint that is gone: found and forgotten.

The proxy does that at every sync (:mod:`kproxy.backends.udpflows`, whose judgement is used here);
a proxy that hangs does not, and a client that keeps sending from one port then sends into nothing
for ever. Flows to serving endpoints are never touched, nor any that belong to no service.
"""

from collections.abc import Callable, Sequence

from kproxy.backends import base
from kproxy.backends.udpflows import StaleFlows
from kproxy.errors import NotFound
from kproxy.kernel.conntrack.types import ConntrackClient, Flow

from .seen import CLEAN, Ask, Care, Wanted

IPVS = "ipvs"


def stale(conntrack: ConntrackClient, wanted: Wanted) -> list[Flow]:
    """Return the flows that lead to nowhere, as things stand. Raises KernelError.

    Where a service has no endpoint at all a proxy in iptables and nftables mode keeps its flows
    unless told otherwise, and so does this.
    """
    keep_last = wanted.mode != IPVS and not wanted.options.clean_last
    found: list[Flow] = []
    for state in wanted.states:
        if state.services:
            family = base.FAMILIES[state.family]
            found += StaleFlows(conntrack, family, keep_last=keep_last).find(state)
    return found


def clean(
    conntrack: ConntrackClient,
    ask: Ask,
    *,
    dry_run: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> Care:
    """Delete them; ``pause`` lets packets pass that are under way, before the last look.

    What is deleted was stale at the first look *and* by what the API server says after it: an
    endpoint that has come in between keeps its flows. Raises KproxyError.
    """
    wanted = ask()
    first = stale(conntrack, wanted)
    if dry_run or not first:
        texts = _texts(first)
        return Care(care=CLEAN, node=wanted.node, dry_run=dry_run, found=texts, done=texts)
    again = set(stale(conntrack, ask()))
    doomed = [flow for flow in first if flow in again]
    results = conntrack.delete(doomed) if doomed else []
    done = [f for f, error in zip(doomed, results, strict=True) if error is None]
    failed = [
        f"{_text(flow)}: {error}"
        for flow, error in zip(doomed, results, strict=True)
        if error is not None and not isinstance(error, NotFound)
    ]
    pause()
    left = stale(conntrack, ask())
    return Care(
        care=CLEAN,
        node=wanted.node,
        found=_texts(first),
        done=_texts(done),
        left=(*failed, *_texts(left)),
        refused=_comes_back(done, left),
    )


def _comes_back(done: Sequence[Flow], left: Sequence[Flow]) -> str:
    """Say why flows that were deleted are there again: the rules still lead there."""
    deleted = {_text(flow) for flow in done}
    if not any(_text(flow) in deleted for flow in left):
        return ""
    return "the kernel's rules still lead there: the proxy must sync first (restart-proxy)"


def _texts(flows: Sequence[Flow]) -> tuple[str, ...]:
    return tuple(_text(flow) for flow in flows)


def _text(flow: Flow) -> str:
    return f"{flow}, led to {flow.reply_source} port {flow.reply_source_port}"
