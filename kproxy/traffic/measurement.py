"""One kind of traffic in one trial, as it goes into the result file. Pure.

Turns the accounts of :mod:`accounting` and :mod:`tcp_accounting` (nanoseconds, one clock) into
:class:`~kproxy.traffic.resultset.Measurement` (milliseconds, relative to the fault), and says
what speaks against believing it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kproxy.traffic import (
    accounting,
    convergence,
    lossperiods,
    quality,
    records,
    resultset,
    tcp_accounting,
)
from kproxy.traffic import delay as delays
from kproxy.traffic.accounting import Account, FlowAccount
from kproxy.traffic.figures import Figure, Recovery
from kproxy.traffic.resultset import Cause

#: A sender that sent less than this share of its plan did not offer the stated rate.
LEAST_SHARE_SENT = 0.99


def ms(ns: float | None) -> float | None:
    """Return nanoseconds as milliseconds, to the microsecond; None stays None."""
    return None if ns is None else round(ns / 1e6, 3)


def _ms(ns: float) -> float:
    return round(ns / 1e6, 3)


def udp(
    account: Account,
    *,
    node: str,
    report: Mapping[str, Any],
    receivers: Iterable[records.ReceiverState] = (),
    timed: bool = True,
) -> resultset.Measurement:
    """Describe UDP traffic from one node. ``report`` is the sender's own (``stopped``).

    Not ``timed``: delays are left out, because the clock did not run while packets travelled.
    """
    plan, affected = account.plan, account.affected
    total = account.total
    states = list(receivers)
    clock_error = max((state.clock_error_ns for state in states), default=0)
    return dataclasses.replace(
        _failover(account, clock_error),
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
        outside_fault=total("outside_fault"),
        affected_flows=len(affected),
        affected_pps=round(plan.rate_pps * len(affected) / plan.flows, 3),
        flows=tuple(_flow(flow, plan) for flow in account.flows),
        series=_series(account),
        services=convergence.services(account),
        loss_pattern=lossperiods.pattern(account.periods),
        delay=delays.delay(account.delays_us, clock_error) if timed else None,
        sender=_quality(account, report, states),
    )


def _failover(account: Account, clock_error_ns: int) -> resultset.Measurement:
    """Describe the outages; their numbers are null without a fault or without recovery."""
    fault = account.plan.fault_ns
    outages = [flow.outage for flow in account.flows if flow.outage is not None]
    recovered = all(convergence.failover_ns(outage) is not None for outage in outages)
    found = resultset.Measurement(
        node="",
        traffic="udp",
        recovered=recovered,
        accuracy_ms=ms(_accuracy(account, outages)),
        convergence=convergence.rate_derived(account),
    )
    if fault is None:
        return found
    interval = account.plan.interval_ns
    found = dataclasses.replace(
        found,
        failover_packet_loss=sum(outage.lost for outage in outages),
        loss_derived_ms=ms(_mean([outage.lost * interval for outage in outages])),
    )
    if not recovered:
        return found
    slowest = max(outages, key=lambda one: convergence.reset_ns(one) or 0, default=None)
    return dataclasses.replace(
        found,
        failover_time_ms=ms(max((convergence.failover_ns(o) or 0 for o in outages), default=0)),
        reset_time_ms=ms(max((convergence.reset_ns(o) or 0 for o in outages), default=0)),
        first_good_ms=_first_good(outages, fault),
        failover=convergence.failover(account, clock_error_ns),
        recovery=_recovery(convergence.recovered(account, clock_error_ns)),
        reset=convergence.reset(slowest, clock_error_ns) if slowest else None,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _accuracy(account: Account, outages: list[accounting.Outage]) -> float:
    """Return the largest uncertainty of the flows; without an outage, what may hide one."""
    if outages:
        return max(convergence.times(outage, account.plan).accuracy for outage in outages)
    return max(2 * account.plan.interval_ns, convergence.hidden_ns(account))


def _first_good(outages: list[accounting.Outage], fault: int) -> float | None:
    """Return when the last of the affected flows had its first good packet, after the fault."""
    arrivals = [outage.after.received_ns for outage in outages if outage.after is not None]
    return ms(max(arrivals) - fault) if arrivals else None


def _flow(flow: FlowAccount, plan: accounting.Plan) -> resultset.UdpFlowResult:
    outage = flow.outage
    times = convergence.times(outage, plan) if outage else None
    failover = convergence.failover_ns(outage) if outage else 0
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
        recovered=failover is not None,
        failover_packet_loss=outage.lost if outage else 0,
        failover_time_ms=ms(failover),
        loss_derived_ms=_ms(flow.lost * plan.interval_ns),
        accuracy_ms=_ms(times.accuracy if times else 2 * plan.interval_ns),
        agrees=times.in_one_piece if times else True,
    )


def _series(account: Account) -> tuple[resultset.Series, ...]:
    """Return what was sent to each service over time, and what of it was lost."""
    plan, names = account.plan, account.plan.services
    zero = account.start_ns if plan.fault_ns is None else plan.fault_ns
    rows: dict[str, list[int]] = {}
    for row, flow in enumerate(account.flows):
        rows.setdefault(names.get(flow.flow, ""), []).append(row)
    return tuple(
        resultset.Series(
            service=name,
            start_ms=_ms(account.start_ns - zero),
            step_ms=_ms(account.step_ns),
            sent=tuple(account.sent_bins[members].sum(axis=0).tolist()),
            lost=tuple(account.lost_bins[members].sum(axis=0).tolist()),
        )
        for name, members in sorted(rows.items())
        if account.step_ns
    )


def _recovery(recovered: Figure | None) -> Recovery:
    return Recovery(event_ms=0.0, programmed_ms=None, recovered_ms=recovered)


def programmed(found: resultset.Measurement, at_ms: float) -> resultset.Measurement:
    """Return a measurement with the instant at which its node had told its kernel.

    That completes the three of one clock: event, kernel programmed, data plane recovered.
    """
    known = found.recovery or _recovery(None)
    return dataclasses.replace(found, recovery=dataclasses.replace(known, programmed_ms=at_ms))


def attributed(
    found: resultset.Measurement, losses: Sequence[resultset.Loss]
) -> resultset.Measurement:
    """Return a measurement with its losses by place and cause, which then add up to all of them.

    What they do not account for is added to them as unexplained, at no place. Whether they say
    more than there were, :func:`problems` tells.
    """
    told = list(losses)
    rest = _lost(found) - sum(one.packets for one in told)
    if rest > 0:
        told.append(resultset.Loss(place="", cause=Cause.UNEXPLAINED, packets=rest))
    unexplained = sum(one.packets for one in told if one.cause is Cause.UNEXPLAINED)
    return dataclasses.replace(found, losses=tuple(told), unexplained=unexplained)


def _lost(found: resultset.Measurement) -> int:
    """Return how many packets were lost; of TCP, how many requests or connections failed."""
    return found.tcp.failed if found.tcp is not None else found.lost or 0


def _quality(
    account: Account, report: Mapping[str, Any], states: Sequence[records.ReceiverState]
) -> resultset.SenderQuality:
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
        timer_error_p99_ms=_told(report, "timer_error_ms", "p99"),
        timer_error_max_ms=_told(report, "timer_error_ms", "max"),
        longest_send_call_ms=_told(report, "longest_send_call_ms"),
        steal_ms=_told(report, "steal_ms"),
        backlog_drops=report.get("backlog_drops"),
        realtime_refused=report.get("realtime_refused"),
    )


def _told(report: Mapping[str, Any], name: str, part: str = "") -> float | None:
    """Return a figure of the sender's report, None if it has not got it."""
    value = report.get(name)
    if part and value is not None:
        value = value[part]
    return None if value is None else round(float(value), 3)


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
    accuracy = max((outage.accuracy_ns for outage in outages if outage.accuracy_ns), default=None)
    back = None
    if good and accuracy is not None and recovered and fault_ns is not None:
        since = max(0, max(good) - fault_ns)  # what recovered before the fault had by then
        back = convergence.figure((since, max(0, since - accuracy), since))
    return resultset.Measurement(
        node=node,
        traffic="tcp-established" if kind == "request" else "tcp-connect",
        affected_flows=len(outages),
        outside_fault=account.outside_fault,
        recovered=recovered,
        failover_time_ms=ms(max((o.failover_ns or 0 for o in outages), default=0))
        if known
        else None,
        first_good_ms=back.ms if back else None,
        accuracy_ms=ms(accuracy),
        recovery=_recovery(back) if known else None,
        tcp=resultset.TcpResult(
            attempted=account.attempted,
            failed=account.failed,
            reset=account.reset,
            stalled=account.stalled,
            reestablished=account.reestablished,
            outcomes=account.outcomes,
            connect_samples_ms=tuple(_ms(ns) for ns in account.connect_ns if timed),
        ),
    )


def fell_short(found: resultset.Measurement) -> bool:
    """Return whether the sender sent less than its plan, by more than can be overlooked."""
    sent, planned = _offered(found)
    return planned - sent > (1 - LEAST_SHARE_SENT) * planned


def _offered(found: resultset.Measurement) -> tuple[int, int]:
    """Return how many packets the sender sent, and how many it was to send."""
    sent = (found.sent or 0) + (found.discarded or 0)
    if found.sender is None:
        return sent, sent
    return sent, sent + found.sender.failed + found.sender.not_sent


def problems(found: resultset.Measurement) -> tuple[str, ...]:
    """Return, in words, what speaks against this measurement; empty if nothing does.

    A loss is no problem if the fault explains it. In a trial without a fault every loss is one.
    """
    where = f"{found.traffic} from {found.node}"
    said = []
    if found.outside_fault:
        said.append(f"{where}: {found.outside_fault} losses or failures without a fault")
    if found.unexplained:
        said.append(f"{where}: {found.unexplained} losses without place and cause")
    lost = _lost(found)
    told = sum(one.packets for one in found.losses)
    if found.losses and told != lost:
        said.append(f"{where}: {lost} losses, but {told} by place and cause")
    if found.strangers:
        said.append(f"{where}: {found.strangers} packets arrived that were not sent")
    if found.sender is not None:
        if fell_short(found):
            sent, planned = _offered(found)
            said.append(f"{where}: the sender sent {sent} of {planned} packets")
        stalled = found.sender.timer_error_max_ms or 0.0
        if stalled >= quality.STALL_MS:
            said.append(f"{where}: the sender stood still for {stalled:.0f} ms")
        if found.sender.receiver_drops:
            said.append(f"{where}: receivers dropped {found.sender.receiver_drops} packets")
        if found.sender.backlog_drops:
            drops = found.sender.backlog_drops
            said.append(f"{where}: the kernel's backlog of packets was full {drops} times")
    if found.sent == 0 or (found.tcp is not None and found.tcp.attempted == 0):
        said.append(f"{where}: nothing was sent")
    return tuple(said)
