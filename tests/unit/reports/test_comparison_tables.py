"""The tables say what the rows say."""

import dataclasses
import io

from rich.console import Console
from rich.table import Table

from kproxy.reports import tables
from kproxy.traffic.resultset import (
    ConnectMs,
    Difference,
    Interval,
    Measurement,
    ModelledShare,
    ResultSet,
    Row,
    Spread,
    TcpRow,
    Trial,
    Verdict,
)

ROW = Row(
    mode="ipvs",
    scenario="endpoint-crash",
    node="hit",
    traffic="udp",
    trials=3,
    offered_pps=1000.0,
    sent=9000,
    received=8910,
    lost=90,
    duplicated=0,
    reordered=0,
    failover_packet_loss=Spread(median=30, min=28, max=32),
    failover_time_ms=Spread(median=64.5, min=60.25, max=70.0),
    restart_to_synced_ms=None,
    tcp=None,
    accuracy_ms=16.0,
    valid=True,
)


def result(*rows: Row, trials: tuple[Trial, ...] = ()) -> ResultSet:
    return ResultSet(kernel={}, host={}, parameters={}, trials=trials, summary=rows)


def shown(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()


def test_loss_and_failover_time_with_their_spread() -> None:
    text = shown(tables.packets_table(result(ROW)))
    assert "30 (28–32) lost" in text
    assert "64.5 (60.2–70.0) ms" in text


def test_zero_is_said_in_words() -> None:
    row = dataclasses.replace(ROW, lost=0, failover_packet_loss=Spread(median=0, min=0, max=0))
    assert "no loss" in shown(tables.packets_table(result(row)))


def test_a_row_that_is_not_valid_shows_no_number() -> None:
    text = shown(tables.packets_table(result(dataclasses.replace(ROW, valid=False))))
    assert "not valid" in text
    assert "30 (28–32)" not in text
    assert "90 of 9000 lost" in text


def test_never_recovered_is_not_a_number() -> None:
    row = dataclasses.replace(ROW, failover_time_ms=Spread(median=None, min=60.0, max=None))
    assert "not recovered" in shown(tables.packets_table(result(row)))


def test_modes_are_columns_and_missing_cells_are_dashes() -> None:
    other = dataclasses.replace(ROW, mode="iptables", node="other")
    text = shown(tables.packets_table(result(ROW, other)))
    assert "ipvs" in text
    assert "iptables" in text
    assert "–" in text


def test_tcp_counts_and_connect_times() -> None:
    tcp = TcpRow(attempted=60, failed=2, reset=1, connect_ms=ConnectMs(p50=0.25, p99=3.5))
    row = dataclasses.replace(ROW, traffic="tcp-connect", tcp=tcp)
    text = shown(tables.tcp_table(result(row)))
    assert "new: 2 of 60" in text
    assert "0.2 / 3.5 ms" in text


def test_tcp_and_restarts_that_are_not_valid_are_said_to_be() -> None:
    """Whoever reads one table only must not take what the tester may have caused for a figure."""
    tcp = TcpRow(attempted=60, failed=2, reset=1, connect_ms=ConnectMs(p50=0.25, p99=3.5))
    row = dataclasses.replace(ROW, traffic="tcp-connect", tcp=tcp, valid=False)
    text = shown(tables.tcp_table(result(row)))
    assert "new: not valid (2 of 60)" in text
    assert "3.5 ms" not in text
    restarted = Spread(median=50.0, min=50.0, max=50.0)
    good = dataclasses.replace(ROW, mode="iptables", restart_to_synced_ms=restarted)
    table = tables.restart_table(result(dataclasses.replace(good, mode="ipvs", valid=False), good))
    assert table is not None
    (line,) = [line for line in shown(table).splitlines() if "endpoint-crash" in line]
    assert line.index("not valid") < line.index("50 ms")
    assert line.count("ms") == 1


def test_connections_that_waited_for_a_second_segment_are_told() -> None:
    tcp = TcpRow(
        attempted=60, failed=0, reset=0, connect_ms=ConnectMs(p50=None, p99=None), stalled=3
    )
    row = dataclasses.replace(ROW, traffic="tcp-connect", tcp=tcp)
    assert "new: 0 of 60, 3 stalled" in shown(tables.tcp_table(result(row)))


def differing(verdict: Verdict, p: float | None = 0.001) -> ResultSet:
    one = Difference(
        figure="failover_time_ms", mode="iptables", verdict=verdict, p=p, corrected_p=p
    )
    spread = Spread(median=64.5, min=60.25, max=70.0, confidence=Interval(low=61.0, high=None))
    row = dataclasses.replace(ROW, trials=20, failover_time_ms=spread, differences=(one,))
    back = dataclasses.replace(one, mode="ipvs")
    other = dataclasses.replace(ROW, mode="iptables", trials=20, differences=(back,))
    return result(row, other)


def test_a_difference_is_marked_and_so_is_how_sure_a_median_is() -> None:
    text = shown(tables.packets_table(differing(Verdict.LESS)))
    assert "64.5 (60.2–70.0) ms [61.0–?]" in text
    assert "< iptables" in text
    (note,) = [line for line in tables.notes(differing(Verdict.LESS)) if "confidence" in line]
    assert "corrected for their number: 1" in note


def test_what_the_test_does_not_show_is_not_marked() -> None:
    text = shown(tables.packets_table(differing(Verdict.NOT_SHOWN)))
    assert "<" not in text
    assert ">" not in text


def test_too_few_trials_are_said() -> None:
    notes = tables.notes(differing(Verdict.TOO_FEW, None))
    assert any(line.startswith("Too few trials (20) to tell differences") for line in notes)
    assert not any("confidence" in line for line in tables.notes(result(ROW)))


def test_restart_table_only_where_something_restarted() -> None:
    assert tables.restart_table(result(ROW)) is None
    row = dataclasses.replace(ROW, restart_to_synced_ms=Spread(median=300, min=300, max=300))
    table = tables.restart_table(result(row))
    assert table is not None
    assert "300 ms" in shown(table)


def test_notes_state_the_accuracy_and_every_problem() -> None:
    trial = Trial(mode="ipvs", scenario="baseline", number=2, problems=("7 packets lost",))
    other = dataclasses.replace(ROW, accuracy_ms=20.0, node="other")
    results = dataclasses.replace(
        result(ROW, other, trials=(trial,)),
        kernel={"clock": "virtual", "release": "6.12.1"},
        parameters={"seed": 7},
    )
    lines = tables.notes(results)
    assert "± 16.0 ms" in lines[0]
    assert "± 20.0 ms" in lines[0]
    assert lines[1] == "Clock: virtual; seed 7; Linux 6.12.1."
    assert lines[2] == "The baseline is not valid, so nothing of this run is."
    assert lines[-1] == "NOT VALID: ipvs baseline trial 2: 7 packets lost"


def test_notes_say_that_there_was_no_baseline() -> None:
    trial = Trial(mode="ipvs", scenario="endpoint-crash", number=1)
    assert any("No baseline" in line for line in tables.notes(result(ROW, trials=(trial,))))


def test_notes_tell_broken_promises() -> None:
    lossy = dataclasses.replace(ROW, scenario="proxy-crash")
    results = dataclasses.replace(result(lossy, ROW), parameters={"lossless": ["proxy-crash"]})
    (line,) = [line for line in tables.notes(results) if line.startswith("LOST")]
    assert "ipvs proxy-crash, hit node: 90 packets" in line


def virtual(*rows: Row, costs: object = None) -> ResultSet:
    whole = result(*rows)
    return dataclasses.replace(whole, kernel={"clock": "virtual"}, parameters={"costs": costs})


def test_what_a_cost_model_contributes_to_is_marked_and_its_share_is_told() -> None:
    row = dataclasses.replace(
        ROW,
        restart_to_synced_ms=Spread(median=200.0, min=200.0, max=200.0),
        modelled_share=ModelledShare(failover_time=0.25, restart_to_synced=0.75),
    )
    results = virtual(row, dataclasses.replace(ROW, node="other"), costs={"name": "mine"})
    text = shown(tables.packets_table(results))
    assert "64.5 (60.2–70.0) ms *25%" in text
    assert "30 (28–32) lost*" in text
    assert text.count("*") == 2
    restarts = tables.restart_table(results)
    assert restarts is not None
    assert "200 ms *75%" in shown(restarts)
    notes = "\n".join(tables.notes(results))
    assert "* modelled: so much of this time" in notes
    assert "'mine'" in notes
    assert "busy" not in notes


def test_a_cost_model_that_contributes_to_few_trials_is_marked_too() -> None:
    share = ModelledShare(failover_time=0.0, restart_to_synced=None)
    row = dataclasses.replace(ROW, modelled_share=share)
    trials = tuple(
        Trial(
            mode="ipvs",
            scenario="endpoint-crash",
            number=number,
            measurements=(Measurement(node="hit", traffic="udp", modelled_ms=spent),),
        )
        for number, spent in enumerate((0.0, 2.0))
    )
    results = virtual(row, costs={"name": "mine"})
    marked = dataclasses.replace(results, trials=trials)
    assert "64.5 (60.2–70.0) ms *0%" in shown(tables.packets_table(marked))
    assert "* modelled" in "\n".join(tables.notes(marked))
    assert "*" not in shown(tables.packets_table(dataclasses.replace(results, trials=trials[:1])))


def test_a_cost_model_of_a_busy_machine_is_told() -> None:
    row = dataclasses.replace(
        ROW, modelled_share=ModelledShare(failover_time=0.25, restart_to_synced=None)
    )
    costs = {"name": "mine", "model": {"entries": [{"busy": False}, {"busy": True}]}}
    assert any(
        "measured on a busy machine" in line for line in tables.notes(virtual(row, costs=costs))
    )


def test_a_mode_of_which_a_cost_model_knows_nothing_is_told() -> None:
    share = ModelledShare(failover_time=0.25, restart_to_synced=None)
    rows = [dataclasses.replace(ROW, mode=mode, modelled_share=share) for mode in ("ipvs", "new")]
    costs = {"name": "mine", "model": {"entries": [{"mode": "ipvs"}, {"mode": ""}]}}
    lines = [one for one in tables.notes(virtual(*rows, costs=costs)) if "nothing on mode" in one]
    assert lines == ["The cost model has nothing on mode new: its syncs take no time."]


def test_without_a_cost_model_nothing_is_marked() -> None:
    assert "*" not in shown(tables.packets_table(result(ROW)))
    assert "No cost model" in "\n".join(tables.notes(virtual(ROW)))
    assert "cost model" not in "\n".join(tables.notes(result(ROW)))


def test_connect_times_are_not_told_in_virtual_time() -> None:
    assert "connect p50" in shown(tables.tcp_table(result(ROW)))
    assert "connect" not in shown(tables.tcp_table(virtual(ROW)))
    assert "connect times are not told" in "\n".join(tables.notes(virtual(ROW)))
