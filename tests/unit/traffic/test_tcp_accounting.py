"""Numbers out of TCP records."""

from kproxy.traffic import measurement, records, tcp_accounting

MS = 1_000_000


def request(
    at_ms: int, outcome: str = "ok", *, connection: int = 0, kind: str = "request", seq: int = 0
) -> records.TcpRecord:
    start = at_ms * MS
    connected = start + MS // 2 if outcome == "ok" else 0
    return records.TcpRecord(kind, outcome, 0, connection, seq, start, connected, start + MS, "p")


def test_an_outage_of_an_established_connection() -> None:
    found = [request(ms) for ms in range(0, 1000, 100)]
    found += [request(1000, "timeout"), request(1900, "refused", kind="establish", seq=1)]
    found += [request(2000, kind="establish", seq=1)]
    found += [request(ms) for ms in range(2000, 3000, 100)]
    found += [request(3000, "unfinished")]
    account = tcp_accounting.account(found, "request", fault_ns=950 * MS)
    assert (account.attempted, account.failed, account.unfinished) == (21, 1, 1)
    assert account.reestablished == 1
    assert account.outcomes == {"ok": 20, "timeout": 1}
    (outage,) = account.outages
    assert outage.failed == 1
    assert outage.failover_ns == 1100 * MS
    assert outage.accuracy_ns == 200 * MS
    assert account.outside_fault == 0


def test_connects_are_counted_per_target() -> None:
    found = [request(ms, kind="connect") for ms in (0, 10, 20)]
    found += [request(30, "reset", kind="connect"), request(40, kind="connect")]
    account = tcp_accounting.account(found, "connect", fault_ns=25 * MS)
    assert (account.attempted, account.failed, account.reset) == (5, 1, 1)
    assert account.connect_ns == (MS // 2,) * 4
    (outage,) = account.outages
    assert outage.failover_ns == 20 * MS


def test_a_failure_without_a_fault_is_outside_it() -> None:
    account = tcp_accounting.account([request(0), request(1, "closed")], "request")
    assert account.outside_fault == 1
    found = measurement.tcp(account, node="other", kind="request", fault_ns=None)
    assert found.traffic == "tcp-established"
    assert any("without a fault" in problem for problem in measurement.problems(found))


def test_no_failure_is_a_failover_time_of_nothing() -> None:
    account = tcp_accounting.account([request(0), request(1)], "request", fault_ns=MS)
    found = measurement.tcp(account, node="hit", kind="request", fault_ns=MS)
    assert found.failover_time_ms == 0.0
    assert found.recovered
    assert measurement.problems(found) == ()


def test_a_client_that_did_nothing_is_a_problem() -> None:
    account = tcp_accounting.account([], "connect", fault_ns=MS)
    found = measurement.tcp(account, node="hit", kind="connect", fault_ns=MS)
    assert measurement.problems(found) == ("tcp-connect from hit: nothing was sent",)


def test_what_recovered_before_the_fault_was_recovered_by_then() -> None:
    found = [request(0), request(100, "reset"), request(200), request(300)]
    account = tcp_accounting.account(found, "request", fault_ns=250 * MS)
    measured = measurement.tcp(account, node="hit", kind="request", fault_ns=250 * MS)
    assert measured.recovery is not None
    back = measured.recovery.recovered_ms
    assert back is not None
    assert (back.low_ms, back.ms, back.high_ms) == (0, 0, 0)
    assert any("without a fault" in problem for problem in measurement.problems(measured))
