"""Synthetic records of an isochronous stream, with an outage of known length."""

from collections.abc import Sequence

import numpy as np

from kproxy.traffic import accounting, records

MS = 1_000_000
RATE = 1000
FLOWS = 16
START = 5_000 * MS


def sent(seconds: float, *, rate: int = RATE, flows: int = FLOWS) -> list[records.Sent]:
    return [
        records.Sent(records.STATUS_SENT, 0, k % flows, k // flows, START + k * 10**9 // rate)
        for k in range(round(seconds * rate))
    ]


def arriving(
    packets: list[records.Sent],
    *,
    outage: tuple[int, int] = (0, 0),
    flows: frozenset[int] = frozenset(range(FLOWS)),
    delay: int = MS // 10,
) -> list[records.Received]:
    """Everything arrives but what ``flows`` send during the outage (times in ns)."""
    begin, end = outage
    return [
        records.Received(p.flow, p.seq, p.ns, p.ns + delay, f"pod-{p.flow % 4}")
        for p in packets
        if p.status == records.STATUS_SENT and not (begin <= p.ns < end and p.flow in flows)
    ]


def plan(packets: list[records.Sent], fault: int | None = None) -> accounting.Plan:
    tmax = 1000 * MS
    return accounting.Plan(
        rate_pps=RATE,
        flows=FLOWS,
        watched_until_ns=packets[-1].ns + tmax,
        fault_ns=fault,
        tmax_ns=tmax,
    )


def sent_array(packets: Sequence[records.Sent]) -> accounting.Array:
    fields = [(p.flow, p.seq, p.ns, p.status, p.errno) for p in packets]
    return np.array(fields, records.SENT_FIELDS)


def received_arrays(packets: Sequence[records.Received]) -> dict[str, accounting.Array]:
    """Return what each pod received, in the order of arrival."""
    by_pod: dict[str, list[tuple[int, int, int, int]]] = {}
    for p in sorted(packets, key=lambda p: p.received_ns):
        by_pod.setdefault(p.pod, []).append((p.flow, p.seq, p.sent_ns, p.received_ns))
    return {pod: np.array(found, records.RECEIVED_FIELDS) for pod, found in by_pod.items()}


def account(
    packets: Sequence[records.Sent],
    received: Sequence[records.Received],
    plan: accounting.Plan,
) -> accounting.Account:
    return accounting.account(sent_array(packets), received_arrays(received), plan)
