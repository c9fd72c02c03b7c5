"""A connection tracking table in memory."""

import errno
from collections.abc import Iterable, Sequence

from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.inet import Family
from kproxy.kernel.netlink import Refusal, kernel_error


class FakeConntrack:
    """Implements :class:`~kproxy.kernel.conntrack.types.ConntrackClient`.

    Faults to order: ``fail_delete[n] = errno`` makes the n-th deletion from now (0 is the next)
    fail; ``unsupported`` is the answer of :meth:`supported`. ``reads`` counts the listings.
    """

    def __init__(self, flows: Iterable[Flow] = ()) -> None:
        self.unsupported: str | None = None
        self.fail_delete: dict[int, int] = {}
        self.reads = 0
        self.table: list[Flow] = list(flows)

    def supported(self) -> str | None:
        """Return what ``unsupported`` says."""
        return self.unsupported

    def flows(self, family: Family, protocol: inet.Protocol = inet.Protocol.UDP) -> list[Flow]:
        """Return the tracked flows of one protocol."""
        self.reads += 1
        return [
            flow
            for flow in self.table
            if flow.protocol is protocol and flow.source.version == family
        ]

    def delete(self, flows: Sequence[Flow]) -> list[KernelError | None]:
        """Forget these flows; return for each None or why not."""
        results: list[KernelError | None] = []
        faults, count = self.fail_delete, len(flows)
        self.fail_delete = {at - count: code for at, code in faults.items() if at >= count}
        for index, flow in enumerate(flows):
            what = f"forget the flow {flow}"
            same = next((known for known in self.table if _is_meant(flow, known)), None)
            if index in faults:
                results.append(kernel_error(what, Refusal(faults[index])))
            elif same is None:
                results.append(kernel_error(what, Refusal(errno.ENOENT)))
            else:
                self.table.remove(same)
                results.append(None)
        return results

    def close(self) -> None:
        """Do nothing."""


def _is_meant(flow: Flow, known: Flow) -> bool:
    """The kernel goes by the original direction and the zone, and by the id if one is given."""
    same = flow[:5] == known[:5] and flow.zone == known.zone
    return same and flow.id in (0, known.id)
