"""Forgetting tracked UDP flows that lead to endpoints which no longer serve.

A tracked flow keeps its translation for as long as packets come, whatever the rules say by then.
TCP notices that its peer has gone, UDP goes on for ever. So after a sync those flows are deleted
whose original destination is a UDP service port of ours and whose translated destination is not
one of its serving endpoints; their next packet takes a new way. All other flows are left alone:
flows to healthy endpoints must survive every restart.
"""

from collections.abc import Iterable, Mapping, Set

from kproxy.desired import model
from kproxy.desired.model import State
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import ConntrackClient, Flow

Place = tuple[str, int]
"""Address, as canonical text, and port."""

Serving = Mapping[Place, Set[Place]]
"""Where clients send to → the endpoints that still serve there."""


def serving(state: State, *, keep_last: bool) -> Serving:
    """Return the serving endpoints of every UDP service port.

    ``keep_last``: leave out services without any, so that their flows go on to the last endpoint
    that was removed. kube-proxy does so in iptables mode; in ipvs mode such flows are refused.
    """
    found: dict[Place, set[Place]] = {}
    for wanted in state.services.values():
        service = wanted.service
        if service.protocol is model.Protocol.UDP and (wanted.known or not keep_last):
            places = found.setdefault((service.cluster_ip, service.port), set())
            places.update((endpoint.address, endpoint.port) for endpoint in wanted.known)
    return found


def stale(flows: Iterable[Flow], serving: Serving) -> list[Flow]:
    """Return the flows to forget."""
    return [
        flow
        for flow in flows
        if (places := serving.get((str(flow.destination), flow.destination_port))) is not None
        and (str(flow.reply_source), flow.reply_source_port) not in places
    ]


class StaleFlows:
    """Deletes stale flows of one family; lists the table only when it may hold any."""

    def __init__(
        self, conntrack: ConntrackClient, family: inet.Family, *, keep_last: bool
    ) -> None:
        self._conntrack = conntrack
        self._family = family
        self._keep_last = keep_last
        self._done_for: Serving | None = None

    def forget(self) -> None:
        """Look at the table again at the next sync: others may have changed rules meanwhile."""
        self._done_for = None

    def sync(self, state: State) -> tuple[int, list[KernelError]]:
        """Delete what is stale now; return how many flows, and what failed (tried again later)."""
        wanted = serving(state, keep_last=self._keep_last)
        if wanted == self._done_for:
            return 0, []
        if not wanted:
            self._done_for = wanted
            return 0, []
        try:
            doomed = stale(self._conntrack.flows(self._family, inet.Protocol.UDP), wanted)
            results = self._conntrack.delete(doomed) if doomed else []
        except KernelError as error:
            self._done_for = None
            return 0, [error]
        failures = [e for e in results if e is not None and not isinstance(e, NotFound)]
        self._done_for = None if failures else wanted
        return len(doomed) - len(failures), failures
