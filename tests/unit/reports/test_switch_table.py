"""Changes of mode as figures and as a table: what was lost, broken, moved, and left behind."""

import dataclasses

from rich.console import Console

from kproxy.reports import switchtable
from kproxy.traffic import switchset
from kproxy.traffic.resultset import Measurement, ResultSet, TcpResult, Trial, UdpFlowResult
from kproxy.traffic.switchset import Impact, LeftBehind, Switch


def flow(before: str, after: str) -> UdpFlowResult:
    return UdpFlowResult(
        flow=1,
        sent=10,
        received=9,
        lost=1,
        late=0,
        duplicated=0,
        reordered=0,
        not_sent=0,
        loss_periods=1,
        pod_before=before,
        pod_after=after,
        recovered=True,
        failover_packet_loss=1,
        failover_time_ms=1.0,
        loss_derived_ms=1.0,
        accuracy_ms=1.0,
        agrees=True,
    )


def tcp(attempted: int, failed: int) -> TcpResult:
    return TcpResult(
        attempted=attempted,
        failed=failed,
        reset=failed,
        reestablished=failed,
        outcomes={},
        connect_samples_ms=(),
        stalled=1,
    )


def test_the_impact_is_read_from_the_measurements() -> None:
    flows = (flow("a", "a"), flow("a", "b"), flow("", "b"), flow("a", ""))
    measured = [
        Measurement(node="hit", traffic="udp", sent=40, lost=4, flows=flows),
        Measurement(node="hit", traffic="tcp-established", affected_flows=3, tcp=tcp(50, 5)),
        Measurement(node="hit", traffic="tcp-connect", tcp=tcp(20, 2)),
        Measurement(node="other", traffic="udp", sent=40, lost=0),
    ]
    hit, other = switchset.impact(measured, 32)
    # A flow that reached nobody before, or nobody after, has not moved.
    assert hit == Impact(
        node="hit",
        sent=40,
        lost=4,
        flows=4,
        flows_moved=1,
        connections=32,
        connections_broken=3,
        attempted=20,
        failed=2,
        stalled=1,
    )
    assert (other.lost, other.connections, other.attempted) == (0, 0, 0)


QUIET = Impact(
    node="other",
    sent=100,
    lost=0,
    flows=32,
    flows_moved=0,
    connections=32,
    connections_broken=0,
    attempted=20,
    failed=0,
    stalled=0,
)


def trial(number: int, lost: int, *, other: Impact = QUIET, left: tuple[LeftBehind, ...]) -> Trial:
    hit = dataclasses.replace(QUIET, node="hit", lost=lost, connections_broken=7)
    switch = Switch(
        old="ipvs", new="nftables", way="new-first", impact=(hit, other), left_behind=left
    )
    return Trial(
        mode="ipvs>nftables",
        scenario="mode-switch-new-first",
        number=number,
        restart_to_synced_ms=80.0,
        switch=switch,
    )


def results(*trials: Trial) -> ResultSet:
    return ResultSet(kernel={}, host={}, parameters={}, trials=trials, summary=())


def shown(found: ResultSet) -> str:
    console = Console(width=170, no_color=True)
    table = switchtable.table(found)
    assert table is not None
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_the_table_shows_the_pair_medians_and_what_is_left() -> None:
    left = (LeftBehind(kind="switch", names=("net/ipv4/vs/conntrack=1",)),)
    text = shown(results(trial(1, 10, left=left), trial(2, 30, left=left)))
    assert "ipvs>nftables" in text
    assert "20 (10–30) of 100" in text
    assert "7 of 32" in text
    assert "1 switch" in text
    assert "other" not in text  # clients there noticed nothing


def test_what_one_trial_of_several_left_behind_is_told() -> None:
    left = (LeftBehind(kind="IP set", names=("KUBE-A", "KUBE-B")),)
    found = results(trial(1, 0, left=()), trial(2, 0, left=left), trial(3, 0, left=()))
    assert "2 IP sets" in shown(found)
    assert len(switchtable.left_behind(found)) == 1


def test_clients_elsewhere_are_shown_where_they_noticed_anything_and_nothing_is_said() -> None:
    noticed = dataclasses.replace(QUIET, flows_moved=3)
    text = shown(results(trial(1, 0, other=noticed, left=())))
    assert "other" in text
    assert "3 of 32" in text
    assert "nothing" in text


def test_of_many_objects_some_are_named_and_all_are_counted() -> None:
    names = tuple(f"KUBE-{letter}" for letter in "ABCDE")
    left = (LeftBehind(kind="IP set", names=names),)
    (line,) = switchtable.left_behind(results(trial(1, 0, left=left)))
    assert line.endswith("new-first: 5 IP sets: KUBE-A, KUBE-B, KUBE-C and 2 more")


def test_without_changes_there_is_no_table() -> None:
    assert switchtable.table(results(Trial(mode="ipvs", scenario="baseline", number=1))) is None


def test_a_trial_that_is_not_valid_leaves_no_figures_in_its_row() -> None:
    good = trial(1, 10, left=())
    bad = dataclasses.replace(trial(2, 30, left=()), problems=("the sender stood still",))
    text = shown(results(good, bad))
    assert "not valid" in text
    assert "of 100" not in text
