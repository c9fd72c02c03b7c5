"""How long an outage lasted, by every method that the RFCs have, each with its interval. Pure.

RFC 6414 has three methods for the failover time of one flow, RFC 6201 two for the reset time, and
RFC 6412 three for convergence of many routes; a service is our route. All of them look at the same
account, so that they can be held against each other: where they do not agree, the outage was not
what the method takes it for (``docs/measuring.md`` says which disagreement means what).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic.accounting import Account, FlowAccount, Outage, Plan
from kproxy.traffic.figures import Convergence, Failover, Figure, ServiceResult, Statistic

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Times:
    """One outage by the methods of RFC 6414, in nanoseconds: value, least and greatest.

    Each is None if the method cannot tell: TBM needs a good packet on both sides, TBLM one
    behind the loss and a fault. The loss-based value is known even of a flow that never recovered.
    """

    tbm: tuple[float, float, float] | None
    plbm: tuple[float, float, float]
    tblm: tuple[float, float, float] | None
    accuracy: float

    @property
    def in_one_piece(self) -> bool | None:
        """Whether TBM and PLBM differ by no more than the accuracy; None: not recovered.

        They do if good packets lie between the losses: the loss was not in one piece.
        """
        if self.tbm is None:
            return None
        return abs(self.tbm[0] - self.plbm[0]) <= self.accuracy

    @property
    def agree(self) -> bool:
        """Whether some time lies in the intervals of all methods that can tell."""
        known = [one for one in (self.tbm, self.plbm, self.tblm) if one is not None]
        return max(low for _, low, _ in known) <= min(high for _, _, high in known)


def times(outage: Outage, plan: Plan, clock_error_ns: int = 0) -> Times:
    """Return what each method says of one outage."""
    a, b, interval = outage.before, outage.after, plan.interval_ns
    lost = outage.lost * interval
    plbm = (lost, max(0.0, lost - interval), lost + interval)
    accuracy: float = 2 * interval
    tbm = tblm = None
    if a is not None and b is not None:
        whole = b.ns - a.ns
        edges = (outage.first_lost_ns - a.ns) + (b.ns - outage.last_lost_ns)
        # How much more time passed between the two than the plan says: the sender's own error.
        # Packets in between that were not sent are seen neither way.
        unsent = (b.seq - a.seq) - (outage.span + 1)
        error = abs(whole - (b.seq - a.seq) * interval)
        accuracy = max(accuracy + unsent * interval + error, edges)
        tbm = (whole, whole - edges, whole)
        middle = lost + (1 + unsent) * interval
        plbm = (lost, max(0.0, middle - edges - error), middle + error)
    if b is not None and plan.fault_ns is not None:
        since = b.received_ns - plan.fault_ns
        tblm = (
            max(0, since),
            max(0, outage.last_lost_ns - plan.fault_ns - clock_error_ns),
            max(0, since + clock_error_ns),
        )
    return Times(tbm=tbm, plbm=plbm, tblm=tblm, accuracy=accuracy)


def failover_ns(outage: Outage) -> int | None:
    """Return the failover time of a flow by time stamps (TBM); None if it did not recover."""
    if outage.before is None or outage.after is None:
        return None
    return outage.after.ns - outage.before.ns


def reset_ns(outage: Outage) -> int | None:
    """Return the reset time of a flow (RFC 6201, time stamps of arrival); None: not recovered."""
    if outage.before is None or outage.after is None:
        return None
    return outage.after.received_ns - outage.before.received_ns


def reset(outage: Outage, clock_error_ns: int = 0) -> Figure | None:
    """Return the reset time with its interval: the gap between arrivals and what hides in it."""
    whole = reset_ns(outage)
    if whole is None or outage.before is None or outage.after is None:
        return None
    edges = (outage.first_lost_ns - outage.before.ns) + (outage.after.ns - outage.last_lost_ns)
    # Arrivals lie apart by the time between the sends and the difference of their delays.
    sent = outage.after.ns - outage.before.ns
    error = abs(whole - sent) + 2 * clock_error_ns
    return figure((whole, max(0, sent - edges - error), whole + error))


def failover(account: Account, clock_error_ns: int = 0) -> Failover | None:
    """Return the three methods for the flow with the longest failover time.

    None without a fault or if a flow did not recover. Without any loss all three are 0, and what
    an outage may have lasted that fell between two packets of every flow is their upper end.
    """
    plan = account.plan
    outages = [flow.outage for flow in account.flows if flow.outage is not None]
    lasted = [failover_ns(outage) for outage in outages]
    if plan.fault_ns is None or None in lasted:
        return None
    if not outages:
        unseen = figure((0, 0, hidden_ns(account)))
        return Failover(tbm_ms=unseen, plbm_ms=unseen, tblm_ms=unseen, agree=True)
    all_times = [times(outage, plan, clock_error_ns) for outage in outages]
    slowest = all_times[max(range(len(outages)), key=lambda n: lasted[n] or 0)]
    assert slowest.tbm is not None
    assert slowest.tblm is not None
    return Failover(
        tbm_ms=figure(slowest.tbm),
        plbm_ms=figure(slowest.plbm),
        tblm_ms=figure(slowest.tblm),
        agree=all(one.agree for one in all_times),
    )


def recovered(account: Account, clock_error_ns: int = 0) -> Figure | None:
    """Return when every affected flow had a good packet again, after the fault.

    None if a flow has not, if none was affected, or without a fault.
    """
    found = [
        times(flow.outage, account.plan, clock_error_ns).tblm
        for flow in account.flows
        if flow.outage is not None
    ]
    known = [one for one in found if one is not None]
    return figure(max(known)) if known and len(known) == len(found) else None


def hidden_ns(account: Account) -> float:
    """Return how long an outage may have lasted without any packet of one flow being lost."""
    gap = max((flow.largest_gap_ns for flow in account.flows), default=0)
    return max(account.plan.interval_ns, gap)


def rate_derived(account: Account) -> Convergence | None:
    """Return the instants of RFC 6412 as the forwarding rate shows them; None without a fault.

    It is the forwarding rate of the affected flows: those of other endpoints go on. That of a
    sampling interval is compared with the load that was offered in the same one, by time of
    sending, so an uneven sender does not look like a loss. An edge that fell between two packets
    of a flow may lie in the interval beside the one that shows it.
    """
    plan = account.plan
    if plan.fault_ns is None:
        return None
    affected = account.lost_bins.any(axis=1)
    sent = account.sent_bins[affected].sum(axis=0)
    lost = account.lost_bins[affected].sum(axis=0)
    step = account.step_ns
    starts = account.start_ns - plan.fault_ns + step * np.arange(len(sent))
    used = np.flatnonzero(sent)
    bad = np.flatnonzero(lost)
    interval = step / 1e6
    if not len(bad):
        return Convergence(
            sampling_interval_ms=interval,
            loss_begins_ms=None,
            first_route_ms=None,
            full_ms=None,
            sustained_ms=None,
            loss_derived_ms=figure((0, 0, hidden_ns(account))),
        )
    begin, last = int(bad[0]), int(bad[-1])
    recovered = last < int(used[-1])
    fell, full = int(starts[begin]), int(starts[last]) + step
    unseen = hidden_ns(account)
    return Convergence(
        sampling_interval_ms=interval,
        loss_begins_ms=figure((fell, fell - unseen, fell + step)),
        first_route_ms=_first_rise(sent, lost, starts, begin, step) if recovered else None,
        full_ms=figure((full, full - step, full + unseen)) if recovered else None,
        sustained_ms=round((int(starts[used[-1]]) + step - full) / 1e6, 3) if recovered else None,
        loss_derived_ms=_loss_derived(account),
    )


def _first_rise(sent: Array, lost: Array, starts: Array, begin: int, step: int) -> Figure:
    """Return when the forwarding rate first rose again; intervals without packets tell nothing.

    It lies between the begin of the interval before and the end of the one in which it rose.
    """
    used = np.flatnonzero(sent[begin:]) + begin
    share = lost[used] / sent[used]
    rise = 1 + int(np.flatnonzero(share[1:] < share[:-1])[0])
    at = int(starts[used[rise]])
    return figure((at, int(starts[used[rise - 1]]), at + step))


def _loss_derived(account: Account) -> Figure:
    """Return all lost packets by the offered rate of all flows: an average over the flows."""
    time = account.total("lost") / account.plan.rate_pps * 1e9
    interval = account.plan.interval_ns
    return figure((time, max(0.0, time - interval), time + interval))


def services(account: Account) -> tuple[ServiceResult, ...]:
    """Return every service with the loss-derived times of its affected flows (RFC 6412, 3.5.3)."""
    plan = account.plan
    members: dict[str, list[FlowAccount]] = {}
    for flow in account.flows:
        members.setdefault(plan.services.get(flow.flow, ""), []).append(flow)
    return tuple(_service(name, flows, plan) for name, flows in sorted(members.items()))


def _service(name: str, flows: Sequence[FlowAccount], plan: Plan) -> ServiceResult:
    affected = [flow for flow in flows if flow.lost]
    return ServiceResult(
        service=name,
        flows=len(flows),
        affected_flows=len(affected),
        offered_pps=round(plan.rate_pps * len(flows) / plan.flows, 3),
        sent=sum(flow.sent for flow in flows),
        lost=sum(flow.lost for flow in flows),
        loss_derived_ms=statistic(flow.lost * plan.interval_ns / 1e6 for flow in affected),
        accuracy_ms=round(plan.interval_ns / 1e6, 3),
    )


def statistic(values: Iterable[float]) -> Statistic | None:
    """Return least, median, mean and greatest; None without values."""
    found = np.array(list(values), float)
    if not len(found):
        return None
    return Statistic(
        min=round(float(found.min()), 3),
        median=round(float(np.median(found)), 3),
        mean=round(float(found.mean()), 3),
        max=round(float(found.max()), 3),
    )


def figure(ns: tuple[float, float, float]) -> Figure:
    """Return value, least and greatest in nanoseconds as a figure in milliseconds."""
    value, low, high = (round(one / 1e6, 3) for one in ns)
    return Figure(ms=value, low_ms=low, high_ms=high)
