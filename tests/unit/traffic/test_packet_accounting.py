"""Numbers out of records: every case is a stream whose truth is known."""

import dataclasses
import tracemalloc
from collections import Counter

import numpy as np
import packet_streams as streams
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from kproxy.traffic import accounting, convergence, measurement, records

MS = streams.MS
INTERVAL = 16 * MS
REPORT = {"late": 0, "late_threshold_ms": 1.0, "lateness_ms": {"p50": 0, "p99": 0, "max": 0}}


def failover(flow: accounting.FlowAccount) -> int:
    assert flow.outage is not None
    lasted = convergence.failover_ns(flow.outage)
    assert lasted is not None
    return lasted


def accuracy(flow: accounting.FlowAccount, account: accounting.Account) -> float:
    assert flow.outage is not None
    return convergence.times(flow.outage, account.plan).accuracy


def in_one_piece(flow: accounting.FlowAccount, account: accounting.Account) -> bool | None:
    assert flow.outage is not None
    return convergence.times(flow.outage, account.plan).in_one_piece


def test_without_loss_nothing_is_counted_as_lost() -> None:
    packets = streams.sent(2)
    account = streams.account(packets, streams.arriving(packets), streams.plan(packets))
    assert account.total("sent") == account.total("received") == 2000
    assert account.total("lost") == account.total("duplicated") == account.total("reordered") == 0
    assert account.affected == ()
    assert account.strangers == 0
    assert measurement.problems(measurement.udp(account, node="hit", report=REPORT)) == ()


@pytest.mark.parametrize("length_ms", [1, 10, 100, 1000])
@pytest.mark.parametrize("affected", [frozenset({3, 7, 11, 15}), frozenset(range(16))])
def test_a_known_outage_is_found(length_ms: int, affected: frozenset[int]) -> None:
    packets = streams.sent(4)
    begin = streams.START + 1500 * MS + 300_000
    outage = (begin, begin + length_ms * MS)
    received = streams.arriving(packets, outage=outage, flows=affected)
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    lost = [p for p in packets if outage[0] <= p.ns < outage[1] and p.flow in affected]
    assert account.total("lost") == len(lost)
    assert {flow.flow for flow in account.affected} == {p.flow for p in lost}
    assert account.total("outside_fault") == 0
    for flow in account.affected:
        assert failover(flow) - accuracy(flow, account) <= length_ms * MS <= failover(flow)
        assert accuracy(flow, account) == 2 * INTERVAL
        assert in_one_piece(flow, account)
        assert flow.loss_periods == 1


@examples(40)
@given(
    begin=st.integers(200 * MS, 800 * MS),
    length=st.integers(0, 600 * MS),
    stall_at=st.integers(100, 1700),
    stall=st.integers(0, 300 * MS),
)
def test_the_truth_lies_within_the_accuracy(
    begin: int, length: int, stall_at: int, stall: int
) -> None:
    """Whatever the outage, and wherever the sender stalls and catches up at once."""
    packets = streams.sent(2)
    until = packets[stall_at].ns + stall
    packets = [
        p._replace(ns=max(p.ns, until)) if index >= stall_at else p
        for index, p in enumerate(packets)
    ]
    outage = (streams.START + begin, streams.START + begin + length)
    received = streams.arriving(packets, outage=outage)
    account = streams.account(packets, received, streams.plan(packets, fault=outage[0]))
    assert account.total("sent") == account.total("received") + account.total("lost")
    for flow in account.affected:
        assert failover(flow) - accuracy(flow, account) <= length
        assert length <= failover(flow)
        assert in_one_piece(flow, account)


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=6))
def test_duplicates_and_reordering(order: list[int], again: list[int]) -> None:
    packets = [records.Sent(1, 0, 0, seq, seq * MS) for seq in range(12)]
    arrivals = [
        records.Received(0, seq, seq * MS, 20 * MS + place, "p")
        for place, seq in enumerate([*order, *again])
    ]
    plan = accounting.Plan(rate_pps=1000, flows=1, watched_until_ns=10**10)
    (flow,) = streams.account(packets, arrivals, plan).flows
    assert flow.duplicated == len(again)
    assert flow.reordered == sum(1 for i, seq in enumerate(order) if seq < max([0, *order[:i]]))
    assert flow.lost == 0


@examples(60)
@given(st.data())
def test_in_parts_it_comes_to_the_same(data: st.DataObject) -> None:
    """However a trial is cut: losses, repetitions and reordering across a border are seen."""
    flows = data.draw(st.integers(1, 3))
    number = data.draw(st.integers(1, 40))
    plan = accounting.Plan(
        rate_pps=1000, flows=flows, watched_until_ns=60 * MS, tmax_ns=30 * MS, fault_ns=15 * MS
    )
    status = st.sampled_from([records.STATUS_SENT] * 6 + [2, 3])
    packets = [
        records.Sent(data.draw(status), 0, k % flows, k // flows, k * MS) for k in range(number)
    ]
    # Ranks instead of times, so that no two packets arrive at once.
    delays = st.lists(st.integers(1, 40_000), max_size=3)
    arrivals = [
        records.Received(p.flow, p.seq, p.ns, p.ns + delay * 1000 + p.seq % 999, "ab"[delay % 2])
        for p in packets
        if p.status == records.STATUS_SENT
        for delay in data.draw(delays)
    ]
    whole = streams.account(packets, arrivals, plan)
    border = data.draw(st.integers(0, number))
    accountant = accounting.Accountant(plan)
    for part in (packets[:border], packets[border:]):
        numbers = {(p.flow, p.seq) for p in part}
        mine = [p for p in arrivals if (p.flow, p.seq) in numbers]
        accountant.add(streams.sent_array(part), streams.received_arrays(mine))
    found = accountant.result()
    for name in ("flows", "strangers", "start_ns", "step_ns"):
        assert getattr(found, name) == getattr(whole, name)
    for name in ("sent_bins", "lost_bins", "delays_us"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    for name in ("flow", "lost", "first_seq", "last_seq", "first_ns", "last_ns"):
        assert np.array_equal(found.periods[name], whole.periods[name])


def test_late_counts_as_lost() -> None:
    packets = streams.sent(1)
    received = streams.arriving(packets)
    received[100] = received[100]._replace(received_ns=received[100].sent_ns + 1001 * MS)
    plan = streams.plan(packets, fault=packets[90].ns)
    account = streams.account(packets, received, plan)
    assert (account.total("lost"), account.total("late")) == (1, 1)


def test_the_last_tmax_is_set_aside() -> None:
    packets = streams.sent(2)
    received = streams.arriving(packets, outage=(streams.START + 1800 * MS, 10**18))
    plan = dataclasses.replace(streams.plan(packets), watched_until_ns=packets[-1].ns)
    account = streams.account(packets, received, plan)
    assert account.total("lost") == 0
    assert account.total("sent") == 1000
    assert account.total("discarded") == 1000


def test_what_was_not_sent_is_not_lost() -> None:
    packets = streams.sent(2)
    for index in range(500, 700):
        packets[index] = packets[index]._replace(status=records.STATUS_NOT_SENT)
    packets[800] = packets[800]._replace(status=records.STATUS_FAILED, errno=105)
    account = streams.account(packets, streams.arriving(packets), streams.plan(packets))
    assert account.total("lost") == 0
    assert (account.total("not_sent"), account.total("failed")) == (200, 1)
    found = measurement.udp(account, node="hit", report=REPORT)
    assert found.sender is not None
    assert found.sender.not_sent == 200
    assert any("1799 of 2000" in problem for problem in measurement.problems(found))


def test_unsent_packets_within_an_outage_widen_the_accuracy() -> None:
    packets = streams.sent(3)
    begin = streams.START + 1000 * MS
    for index in range(1200, 1520):
        packets[index] = packets[index]._replace(status=records.STATUS_NOT_SENT)
    received = streams.arriving(packets, outage=(begin, begin + 1000 * MS))
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    for flow in account.affected:
        assert accuracy(flow, account) >= 20 * INTERVAL
        assert in_one_piece(flow, account)


def test_loss_in_two_pieces_disagrees() -> None:
    packets = streams.sent(4)
    first = (streams.START + 1000 * MS, streams.START + 1200 * MS)
    second = (streams.START + 3000 * MS, streams.START + 3200 * MS)
    received = [
        r
        for r in streams.arriving(packets, outage=first)
        if not second[0] <= r.sent_ns < second[1]
    ]
    account = streams.account(packets, received, streams.plan(packets, fault=first[0]))
    for flow in account.affected:
        assert flow.loss_periods == 2
        assert in_one_piece(flow, account) is False
        assert failover(flow) > 2000 * MS


def test_a_flow_that_does_not_recover_has_no_failover_time() -> None:
    packets = streams.sent(2)
    begin = streams.START + 1000 * MS
    received = streams.arriving(packets, outage=(begin, 10**18), flows=frozenset({5}))
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    found = measurement.udp(account, node="hit", report=REPORT)
    assert found.recovered is False
    assert found.failover_time_ms is None
    assert found.affected_flows == 1
    assert found.failover_packet_loss == account.total("lost") > 0


def test_losses_before_the_fault_are_outside_it() -> None:
    packets = streams.sent(4)
    lost = (streams.START + 100 * MS, streams.START + 101 * MS)
    received = streams.arriving(packets, outage=lost)
    fault = streams.START + 3000 * MS
    account = streams.account(packets, received, streams.plan(packets, fault=fault))
    assert account.total("outside_fault") == account.total("lost") == 1
    found = measurement.udp(account, node="hit", report=REPORT)
    assert any("without a fault" in problem for problem in measurement.problems(found))


def test_strangers_are_reported() -> None:
    packets = streams.sent(1)
    received = [*streams.arriving(packets), records.Received(99, 0, 0, 10**12, "pod-0")]
    account = streams.account(packets, received, streams.plan(packets))
    assert account.strangers == 1


def test_flows_are_told_apart_by_endpoint() -> None:
    packets = streams.sent(3)
    begin = streams.START + 1000 * MS
    hit = frozenset({1, 5, 9, 13})
    received = streams.arriving(packets, outage=(begin, begin + 320 * MS), flows=hit)
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    assert Counter(flow.pod_before for flow in account.flows) == {f"pod-{n}": 4 for n in range(4)}
    assert sum(flow.lost for flow in account.flows if flow.pod_before == "pod-1") == 80
    assert not any(flow.lost for flow in account.flows if flow.pod_before != "pod-1")


def test_the_measurement_of_an_outage() -> None:
    packets = streams.sent(4)
    begin = streams.START + 1000 * MS
    received = streams.arriving(packets, outage=(begin, begin + 320 * MS), flows=frozenset({0, 4}))
    account = streams.account(packets, received, streams.plan(packets, fault=begin))
    state = records.ReceiverState("pod-0", 10, 3, 0, 2000)
    found = measurement.udp(account, node="hit", report=REPORT, receivers=[state])
    assert found.failover_packet_loss == 40
    assert found.failover_time_ms == 336.0  # 21 intervals: from the last good to the first good
    assert found.loss_derived_ms == 320.0
    assert found.accuracy_ms == 32.0
    assert found.affected_pps == 125.0
    assert found.first_good_ms == pytest.approx(320, abs=16)
    assert measurement.problems(found) == ("udp from hit: receivers dropped 3 packets",)


def accounted(parts: int, size: int = 1 << 14) -> tuple[accounting.Account, int]:
    """Account for a stream with an outage; return the greatest memory that it took, too."""
    number = parts * size
    end = number * MS // 20
    plan = accounting.Plan(
        rate_pps=20_000, flows=16, watched_until_ns=end + 50 * MS, tmax_ns=50 * MS, fault_ns=0
    )
    accountant = accounting.Accountant(plan)
    tracemalloc.start()
    for start in range(0, number, size):
        k = np.arange(start, start + size)
        sent = np.zeros(size, records.SENT_FIELDS)
        sent["flow"], sent["seq"], sent["ns"] = k % 16, k // 16, k * (MS // 20)
        sent["status"] = records.STATUS_SENT
        there = sent[(sent["ns"] < end // 3) | (sent["ns"] >= end // 2)]
        arrived = np.zeros(len(there), records.RECEIVED_FIELDS)
        arrived["flow"], arrived["seq"] = there["flow"], there["seq"]
        arrived["sent_ns"], arrived["received_ns"] = there["ns"], there["ns"] + MS
        accountant.add(sent, {"pod": arrived})
    account = accountant.result()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return account, peak


def test_memory_does_not_grow_with_the_length_of_a_trial() -> None:
    short, little = accounted(2)
    long, peak = accounted(12)
    assert (short.total("sent"), long.total("sent")) == (2 << 14, 12 << 14)
    assert long.total("lost") == sum(flow.lost for flow in long.affected) > (1 << 14)
    assert all(flow.loss_periods == 1 for flow in long.affected)
    assert peak < 1.2 * little


def test_what_comes_a_part_too_late_is_late_and_nobody_strange() -> None:
    packets = streams.sent(1)
    arrivals = streams.arriving(packets)
    accountant = accounting.Accountant(streams.plan(packets))
    missing = arrivals.pop(100)
    border = 500
    accountant.add(
        streams.sent_array(packets[:border]),
        streams.received_arrays([p for p in arrivals if p.sent_ns < packets[border].ns]),
    )
    rest = [p for p in arrivals if p.sent_ns >= packets[border].ns]
    accountant.add(streams.sent_array(packets[border:]), streams.received_arrays([*rest, missing]))
    account = accountant.result()
    assert (account.total("lost"), account.total("late"), account.strangers) == (1, 1, 0)
