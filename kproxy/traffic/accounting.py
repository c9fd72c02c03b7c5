"""From records of packets to numbers: loss, duplicates, reordering, failover. Pure.

The definitions are in ``docs/measuring.md``, each with its RFC. In short: a packet is *lost* if
it was sent and did not arrive within Tmax (RFC 7680); a packet that was never sent is not lost;
packets sent in the last Tmax of the time that was watched are set aside (RFC 4656). The failover
time of a flow is the time between the send times of the last unimpaired packet before its loss
and the first unimpaired one after it (RFC 6414, timestamp-based method). All times are
nanoseconds of one clock.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy.traffic import records

DEFAULT_TMAX_NS = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the sender was to do, and when the receivers were last known to listen.

    ``fault_ns`` is None for a trial without a fault. Packets sent after
    ``watched_until_ns - tmax_ns`` are set aside.
    """

    rate_pps: float
    flows: int
    watched_until_ns: int
    fault_ns: int | None = None
    tmax_ns: int = DEFAULT_TMAX_NS

    @property
    def interval_ns(self) -> float:
        """The planned time between two packets of one flow."""
        return self.flows * 1e9 / self.rate_pps


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The impairment of one flow, from its first lost packet to its last.

    ``failover_ns`` is None if no good packet came before it or none followed. The true outage
    lies between ``failover_ns - accuracy_ns`` and ``failover_ns``. ``loss_derived_ns`` is lost
    packets times the flow's interval (packet-loss-based method); ``agrees`` says whether the two
    differ by at most the accuracy, None if the flow did not recover. They disagree when the loss
    was not in one piece.
    """

    lost: int
    last_good_ns: int | None
    first_good_ns: int | None
    first_good_received_ns: int | None
    failover_ns: int | None
    reset_ns: int | None
    loss_derived_ns: int
    accuracy_ns: int
    agrees: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowAccount:
    """Everything about one flow. ``lost`` includes ``late``; ``pod_*`` are "" if nobody answered.

    ``unexplained`` counts the losses that the fault cannot explain: packets sent more than Tmax
    before it, and all of them in a trial without a fault.
    """

    flow: int
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    reordered: int
    not_sent: int
    failed: int
    discarded: int
    unexplained: int
    loss_periods: int
    largest_gap_ns: int
    pod_before: str
    pod_after: str
    outage: Outage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All flows of one sender in one trial. ``strangers`` arrived without having been sent."""

    plan: Plan
    flows: tuple[FlowAccount, ...]
    strangers: int

    def total(self, name: str) -> int:
        """Return the sum of one counter over the flows."""
        return sum(int(getattr(flow, name)) for flow in self.flows)

    @property
    def affected(self) -> tuple[FlowAccount, ...]:
        """The flows that lost packets."""
        return tuple(flow for flow in self.flows if flow.outage is not None)

    def by_endpoint(self) -> dict[str, tuple[int, int]]:
        """Return (flows, lost packets) by the pod that served the flow before the fault."""
        found: dict[str, tuple[int, int]] = {}
        for flow in self.flows:
            flows, lost = found.get(flow.pod_before, (0, 0))
            found[flow.pod_before] = (flows + 1, lost + flow.lost)
        return found


@dataclass(slots=True)
class _Arrivals:
    """What arrived of one flow: first arrival of each sequence number, and the odd ones."""

    first: dict[int, records.Received]
    duplicated: int = 0
    reordered: int = 0
    next_expected: int = 0


def account(
    sent: Iterable[records.Sent], received: Sequence[records.Received], plan: Plan
) -> Account:
    """Match sent with received packets. ``received`` must be in the order of arrival."""
    arrivals = _arrivals(received)
    flows: dict[int, list[records.Sent]] = {}
    for packet in sent:
        flows.setdefault(packet.flow, []).append(packet)
    accounts = []
    strangers = 0
    for flow, packets in sorted(flows.items()):
        arrived = arrivals.pop(flow, None) or _Arrivals({})
        accounts.append(_flow(flow, packets, arrived, plan))
        known = {p.seq for p in packets if p.status == records.STATUS_SENT}
        strangers += sum(1 for seq in arrived.first if seq not in known)
    strangers += sum(len(arrived.first) for arrived in arrivals.values())
    return Account(plan=plan, flows=tuple(accounts), strangers=strangers)


def _arrivals(received: Sequence[records.Received]) -> dict[int, _Arrivals]:
    found: dict[int, _Arrivals] = {}
    for packet in received:
        flow = found.get(packet.flow)
        if flow is None:
            flow = found[packet.flow] = _Arrivals({})
        if packet.seq in flow.first:
            flow.duplicated += 1
            continue
        flow.first[packet.seq] = packet
        # RFC 4737, 3.3: reordered if smaller than the next expected; else that moves on.
        if packet.seq < flow.next_expected:
            flow.reordered += 1
        else:
            flow.next_expected = packet.seq + 1
    return found


def _flow(flow: int, packets: list[records.Sent], arrived: _Arrivals, plan: Plan) -> FlowAccount:
    end = plan.watched_until_ns - plan.tmax_ns
    went = [p for p in packets if p.status == records.STATUS_SENT]
    counted = [p for p in went if p.ns <= end]
    bad, late = [], 0
    for index, packet in enumerate(counted):
        arrival = arrived.first.get(packet.seq)
        if arrival is None or arrival.received_ns - packet.ns > plan.tmax_ns:
            bad.append(index)
            late += arrival is not None
    before = None if plan.fault_ns is None else plan.fault_ns - plan.tmax_ns
    pods = _pods(counted, arrived, plan.fault_ns)
    return FlowAccount(
        flow=flow,
        sent=len(counted),
        received=len(counted) - len(bad),
        lost=len(bad),
        late=late,
        duplicated=arrived.duplicated,
        reordered=arrived.reordered,
        not_sent=sum(1 for p in packets if p.status == records.STATUS_NOT_SENT),
        failed=sum(1 for p in packets if p.status == records.STATUS_FAILED),
        discarded=len(went) - len(counted),
        unexplained=sum(1 for i in bad if before is None or counted[i].ns < before),
        loss_periods=sum(1 for n, i in enumerate(bad) if n == 0 or bad[n - 1] != i - 1),
        largest_gap_ns=max((b.ns - a.ns for a, b in itertools.pairwise(counted)), default=0),
        pod_before=pods[0],
        pod_after=pods[1],
        outage=_outage(counted, bad, arrived, plan) if bad else None,
    )


def _pods(
    counted: list[records.Sent], arrived: _Arrivals, fault_ns: int | None
) -> tuple[str, str]:
    """Return who had the last packet sent before the fault and the last one of all."""
    before, after = "", ""
    for packet in counted:
        arrival = arrived.first.get(packet.seq)
        if arrival is not None:
            after = arrival.pod
            if fault_ns is None or packet.ns < fault_ns:
                before = arrival.pod
    return before, after


def _outage(counted: list[records.Sent], bad: list[int], arrived: _Arrivals, plan: Plan) -> Outage:
    a = counted[bad[0] - 1] if bad[0] > 0 else None
    b = counted[bad[-1] + 1] if bad[-1] + 1 < len(counted) else None
    derived = round(len(bad) * plan.interval_ns)
    accuracy: float = 2 * plan.interval_ns
    failover = reset = agrees = None
    if a is not None and b is not None:
        failover = b.ns - a.ns
        reset = arrived.first[b.seq].received_ns - arrived.first[a.seq].received_ns
        # How much more time passed between the two than the plan says: the sender's own error.
        # Packets in between that were not sent are seen neither way.
        unsent = (b.seq - a.seq) - (bad[-1] - bad[0] + 2)
        error = abs(failover - (b.seq - a.seq) * plan.interval_ns)
        edges = (counted[bad[0]].ns - a.ns) + (b.ns - counted[bad[-1]].ns)
        accuracy = max(accuracy + unsent * plan.interval_ns + error, edges)
        agrees = abs(failover - derived) <= accuracy
    return Outage(
        lost=len(bad),
        last_good_ns=a.ns if a else None,
        first_good_ns=b.ns if b else None,
        first_good_received_ns=arrived.first[b.seq].received_ns if b else None,
        failover_ns=failover,
        reset_ns=reset,
        loss_derived_ns=derived,
        accuracy_ns=round(accuracy),
        agrees=agrees,
    )
