"""One kind of traffic in one trial, as it goes into the result file. Pure.

Turns the accounts of :mod:`accounting` and :mod:`tcp_accounting` (nanoseconds, one clock) into
:class:`~kproxy.traffic.resultset.Measurement` (milliseconds, relative to the fault), and says
what speaks against believing it.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from kproxy.traffic import accounting, records, resultset, tcp_accounting

#: A sender that sent less than this share of its plan did not offer the stated rate.
LEAST_SHARE_SENT = 0.99


def ms(ns: float | None) -> float | None:
    """Return nanoseconds as milliseconds, to the microsecond; None stays None."""
    return None if ns is None else round(ns / 1e6, 3)


def _ms(ns: float) -> float:
    return round(ns / 1e6, 3)


def udp(
    account: accounting.Account,
    *,
    node: str,
    report: Mapping[str, Any],
    receivers: Iterable[records.ReceiverState] = (),
) -> resultset.Measurement:
    """Describe UDP traffic from one node. ``report`` is the sender's own (``stopped``)."""
    plan, affected = account.plan, account.affected
    total = account.total
    return dataclasses.replace(
        _failover(account),
        node=node,
        offered_pps=plan.rate_pps,
        sent=total("sent"),
        received=total("received"),
        lost=total("lost"),
        late=total("late"),
        duplicated=total("duplicated"),
        reordered=total("reordered"),
        discarded=total("discarded"),
        strangers=account.strangers,
        unexplained=total("unexplained"),
        affected_flows=len(affected),
        affected_pps=round(plan.rate_pps * len(affected) / plan.flows, 3),
        flows=tuple(_flow(flow, plan) for flow in account.flows),
        sender=_quality(account, report, receivers),
    )


def _failover(account: accounting.Account) -> resultset.Measurement:
    """Describe the outages; their numbers are null without a fault or without recovery."""
    fault = account.plan.fault_ns
    outages = [flow.outage for flow in account.flows if flow.outage is not None]
    recovered = all(outage.failover_ns is not None for outage in outages)
    found = resultset.Measurement(
        node="", traffic="udp", recovered=recovered, accuracy_ms=ms(_accuracy(account, outages))
    )
    if fault is None:
        return found
    found = dataclasses.replace(
        found,
        failover_packet_loss=sum(outage.lost for outage in outages),
        loss_derived_ms=ms(_mean([outage.loss_derived_ns for outage in outages])),
    )
    if not recovered:
        return found
    return dataclasses.replace(
        found,
        failover_time_ms=ms(max((o.failover_ns or 0 for o in outages), default=0)),
        reset_time_ms=ms(max((o.reset_ns or 0 for o in outages), default=0)),
        first_good_ms=_first_good(outages, fault),
    )


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0


def _accuracy(account: accounting.Account, outages: list[accounting.Outage]) -> float:
    """Return the largest uncertainty of the flows; without an outage, what may hide one."""
    if outages:
        return max(outage.accuracy_ns for outage in outages)
    gap = max((flow.largest_gap_ns for flow in account.flows), default=0)
    return max(2 * account.plan.interval_ns, gap)


def _first_good(outages: list[accounting.Outage], fault: int) -> float | None:
    """Return when the last of the affected flows had its first good packet, after the fault."""
    if not outages:
        return None
    return ms(max(outage.first_good_received_ns or 0 for outage in outages) - fault)


def _flow(flow: accounting.FlowAccount, plan: accounting.Plan) -> resultset.UdpFlowResult:
    outage = flow.outage
    return resultset.UdpFlowResult(
        flow=flow.flow,
        sent=flow.sent,
        received=flow.received,
        lost=flow.lost,
        late=flow.late,
        duplicated=flow.duplicated,
        reordered=flow.reordered,
        not_sent=flow.not_sent + flow.failed,
        loss_periods=flow.loss_periods,
        pod_before=flow.pod_before,
        pod_after=flow.pod_after,
        recovered=outage is None or outage.failover_ns is not None,
        failover_packet_loss=outage.lost if outage else 0,
        failover_time_ms=ms(outage.failover_ns) if outage else 0.0,
        loss_derived_ms=_ms(outage.loss_derived_ns) if outage else 0.0,
        accuracy_ms=_ms(outage.accuracy_ns if outage else 2 * plan.interval_ns),
        agrees=outage.agrees if outage else True,
    )


def _quality(
    account: accounting.Account,
    report: Mapping[str, Any],
    receivers: Iterable[records.ReceiverState],
) -> resultset.SenderQuality:
    states = list(receivers)
    lateness = report["lateness_ms"]
    return resultset.SenderQuality(
        late=report["late"],
        late_threshold_ms=report["late_threshold_ms"],
        lateness_p50_ms=round(lateness["p50"], 3),
        lateness_p99_ms=round(lateness["p99"], 3),
        lateness_max_ms=round(lateness["max"], 3),
        failed=account.total("failed"),
        not_sent=account.total("not_sent"),
        largest_gap_ms=_ms(max((f.largest_gap_ns for f in account.flows), default=0)),
        receiver_drops=sum(state.drops for state in states),
        clock_error_ms=_ms(max((state.clock_error_ns for state in states), default=0)),
    )


def tcp(
    account: tcp_accounting.TcpAccount,
    *,
    node: str,
    kind: str,
    fault_ns: int | None,
    timed: bool = True,
) -> resultset.Measurement:
    """Describe TCP traffic from one node; ``kind`` as in ``tcp_accounting.account``.

    Not ``timed``: connect times are left out, because the clock did not run while they passed.
    """
    outages = account.outages
    recovered = all(outage.failover_ns is not None for outage in outages)
    known = fault_ns is not None and recovered
    good = [outage.first_good_ns for outage in outages if outage.first_good_ns is not None]
    return resultset.Measurement(
        node=node,
        traffic="tcp-established" if kind == "request" else "tcp-connect",
        affected_flows=len(outages),
        unexplained=account.unexplained,
        recovered=recovered,
        failover_time_ms=ms(max((o.failover_ns or 0 for o in outages), default=0))
        if known
        else None,
        first_good_ms=ms(max(good) - fault_ns) if good and recovered and fault_ns else None,
        accuracy_ms=ms(max((o.accuracy_ns for o in outages if o.accuracy_ns), default=None)),
        tcp=resultset.TcpResult(
            attempted=account.attempted,
            failed=account.failed,
            reset=account.reset,
            reestablished=account.reestablished,
            outcomes=account.outcomes,
            connect_samples_ms=tuple(_ms(ns) for ns in account.connect_ns if timed),
        ),
    )


def fell_short(found: resultset.Measurement) -> bool:
    """Return whether the sender sent less than its plan, by more than can be overlooked."""
    if found.sender is None:
        return False
    missing = found.sender.failed + found.sender.not_sent
    planned = (found.sent or 0) + (found.discarded or 0) + missing
    return missing > (1 - LEAST_SHARE_SENT) * planned


def problems(found: resultset.Measurement) -> tuple[str, ...]:
    """Return, in words, what speaks against this measurement; empty if nothing does.

    A loss is no problem if the fault explains it. In a trial without a fault every loss is one.
    """
    where = f"{found.traffic} from {found.node}"
    said = []
    if found.unexplained:
        said.append(f"{where}: {found.unexplained} losses or failures without a fault")
    if found.strangers:
        said.append(f"{where}: {found.strangers} packets arrived that were not sent")
    if found.sender is not None:
        missing = found.sender.failed + found.sender.not_sent
        planned = (found.sent or 0) + (found.discarded or 0) + missing
        if fell_short(found):
            said.append(f"{where}: the sender sent {planned - missing} of {planned} packets")
        if found.sender.receiver_drops:
            said.append(f"{where}: receivers dropped {found.sender.receiver_drops} packets")
    if found.sent == 0 or (found.tcp is not None and found.tcp.attempted == 0):
        said.append(f"{where}: nothing was sent")
    return tuple(said)
