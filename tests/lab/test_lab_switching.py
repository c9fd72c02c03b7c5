"""A live node changes its mode, and a restart policy has its price: what the kernel must do, is.

Each ordered pair of modes once; docs/switching.md explains every number.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.lab import scenarios, switching
from kproxy.traffic import resultset
from kproxy.traffic.resultset import Measurement, ResultSet, Trial
from kproxy.traffic.switchset import Impact, Switch

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
COMPARE = (sys.executable, "-m", "kproxy", "compare", "--kernel", "native", "--trials", "1")
TICK_S = 0.01  # of the embedded kernel: HZ=100
SENDING_S = 0.005  # Each flow's packets are sent at multiples of it.
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(out: Path, *options: str) -> ResultSet:
    command = [*COMPARE, "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return resultset.read(out / "result.json")


def switched(out: Path, pair: str, way: str, *options: str) -> tuple[Trial, Switch]:
    old, new = pair.split(">")
    words = ("--scenario", f"{switching.NAME}-{way}", "--from", old, "--to", new)
    found = run(out, *words, *options)
    (trial,) = found.trials
    assert trial.mode == pair
    assert trial.problems == ()
    assert trial.switch is not None
    assert (trial.switch.old, trial.switch.new, trial.switch.way) == (old, new, way)
    return trial, trial.switch


def impact(switch: Switch, node: str) -> Impact:
    (found,) = [one for one in switch.impact if one.node == node]
    assert found.sent > 1000
    assert found.flows == 32
    assert found.connections == 32
    assert found.attempted > 10
    return found


def undisturbed(one: Impact) -> bool:
    """Return whether nothing happened to what was there before the change."""
    return not (one.lost or one.connections_broken or one.flows_moved)


def quiet(one: Impact) -> bool:
    return undisturbed(one) and not (one.failed or one.stalled)


def part(trial: Trial, node: str, traffic: str) -> Measurement:
    (found,) = [m for m in trial.measurements if (m.traffic, m.node) == (traffic, node)]
    return found


def outcomes(trial: Trial, node: str) -> set[str]:
    """Return what became of requests on connections that were kept open."""
    tcp = part(trial, node, "tcp-established").tcp
    assert tcp is not None
    return set(tcp.outcomes)


def left(switch: Switch) -> dict[str, tuple[str, ...]]:
    return {one.kind: one.names for one in switch.left_behind}


def time_of(trial: Trial, name: str) -> float:
    (found,) = [event.ms for event in trial.timeline if event.name == name]
    return found


def gap_is_lost(trial: Trial) -> None:
    """Check that flows lost packets while there were no rules, and that this has ended."""
    gap = time_of(trial, scenarios.SYNCED) - time_of(trial, switching.CLEANED)
    udp = part(trial, "hit", "udp")
    assert udp.lost
    assert udp.recovered
    assert udp.failover_time_ms is not None
    assert udp.accuracy_ms is not None
    # The proxy logs "synced" a little after its rules have effect.
    assert udp.failover_time_ms >= gap - udp.accuracy_ms


def test_without_its_virtual_servers_ipvs_forgets_and_connections_meet_other_pods(
    tmp_path: Path,
) -> None:
    trial, switch = switched(tmp_path, "ipvs>nftables", "new-first")
    hit = impact(switch, "hit")
    # New connections find rules at every moment.
    assert (hit.failed, hit.stalled) == (0, 0)
    # Of two pods the new choice is the old one in half of the cases.
    assert 0 < hit.flows_moved < hit.flows
    assert 0 < hit.connections_broken < hit.connections
    assert outcomes(trial, "hit") == {"ok", "reset"}
    # When a server goes the kernel has work to do in one tick (expire_nodest_conn_work), which is
    # 10 to 20 ms later; until then all is lost that is sent, and the sender sends every 5 ms.
    udp = part(trial, "hit", "udp")
    assert udp.lost is not None
    assert udp.offered_pps is not None
    assert 0 < udp.lost <= udp.offered_pps * (2 * TICK_S + SENDING_S)
    # Of a flow, which sends every 16 ms, that is one run of two packets at most.
    assert max(flow.lost for flow in udp.flows) <= 2
    assert max(flow.loss_periods for flow in udp.flows) == 1
    assert quiet(impact(switch, "other"))
    found = left(switch)
    assert found.keys() == {"switch", "table"}
    assert found["table"] == ("ip filter", "ip nat")  # of iptables, with no rule in them
    assert "net/ipv4/vs/conntrack=1" in found["switch"]


def test_tracked_connections_stay_where_they_are_while_rules_overlap(tmp_path: Path) -> None:
    _, switch = switched(tmp_path, "iptables>ipvs", "new-first")
    assert quiet(impact(switch, "hit"))
    assert quiet(impact(switch, "other"))
    assert switch.left_behind == ()


def test_without_any_rule_nothing_is_tracked_until_the_new_rules_are_there(
    tmp_path: Path,
) -> None:
    trial, switch = switched(tmp_path, "nftables>iptables", "clean-first")
    gap_is_lost(trial)
    # The entries are still there, and are used again. (Where the scheduler is a second late, a
    # client may have given up.)
    assert impact(switch, "hit").flows_moved == 0
    assert outcomes(trial, "hit") <= {"ok", "timeout"}
    assert quiet(impact(switch, "other"))
    assert switch.left_behind == ()


def test_somebody_elses_rule_keeps_tracked_connections_going(tmp_path: Path) -> None:
    rules = ("--node-rules", str(EXAMPLES / "node-rules.nft"))
    _, switch = switched(tmp_path, "iptables>nftables", "clean-first", *rules)
    assert undisturbed(impact(switch, "hit"))
    assert quiet(impact(switch, "other"))


def test_ipvs_cleaned_first_loses_the_gap_and_its_connections(tmp_path: Path) -> None:
    trial, switch = switched(tmp_path, "ipvs>iptables", "clean-first")
    gap_is_lost(trial)
    hit = impact(switch, "hit")
    assert 0 < hit.flows_moved < hit.flows
    assert 0 < hit.connections_broken < hit.connections
    assert {"ok", "reset"} <= outcomes(trial, "hit") <= {"ok", "reset", "timeout"}
    assert quiet(impact(switch, "other"))
    assert left(switch).keys() == {"switch"}


def test_a_drained_node_costs_its_pods_and_nothing_else(tmp_path: Path) -> None:
    trial, switch = switched(tmp_path, "nftables>ipvs", "drained")
    assert quiet(impact(switch, "hit"))
    other = impact(switch, "other")
    assert 0 < other.connections_broken < other.connections
    assert outcomes(trial, "other") == {"ok", "closed"}
    assert other.failed == 0
    assert switch.left_behind == ()


def test_a_policy_that_flushes_has_its_price_and_is_told_apart(tmp_path: Path) -> None:
    words = ("--scenario", "proxy-delete", "--modes", "nftables")
    found = run(tmp_path, *words, "--policy", "flush-at-start,cleanup-at-exit")
    lost = {
        (trial.mode, node): part(trial, node, "udp").lost
        for trial in found.trials
        for node in ("hit", "other")
    }
    assert lost["nftables+flush-at-start", "hit"]
    assert lost["nftables+cleanup-at-exit", "hit"]
    assert {count for (_, node), count in lost.items() if node == "other"} == {0}
    assert found.parameters["unpromised"] == [
        "nftables+flush-at-start",
        "nftables+cleanup-at-exit",
    ]
