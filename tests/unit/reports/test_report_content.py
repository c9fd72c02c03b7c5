"""The report says what the results say, in the right order, and leaves out what they do not."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import plotly.graph_objects as go
import pytest
import report_samples as samples

import kproxy
from kproxy.reports import (
    certainty,
    charts,
    comparisons,
    csvfile,
    losses,
    markdown,
    report,
    timechart,
    view,
)
from kproxy.reports.document import Block, Chart, Document, Fold, Grid, Part, Side
from kproxy.reports.document import Path as Way
from kproxy.reports.reading import Loaded
from kproxy.traffic import summary
from kproxy.traffic.resultset import (
    Cause,
    Difference,
    Loss,
    Methods,
    ResultSet,
    Series,
    Spread,
    Verdict,
)

GOOD = samples.loaded(samples.comparison(), "good")
BAD = samples.loaded(samples.spoiled(samples.comparison()), "bad")
OLD = samples.loaded(samples.comparison(rates=False), "old")


def all_blocks(blocks: Iterable[Block]) -> Iterable[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Side | Fold | Part):
            yield from all_blocks(block.blocks)


def blocks_of(document: Document, anchor: str) -> list[Block]:
    section = next(one for one in document.sections if one.anchor == anchor)
    return list(all_blocks(section.blocks))


def texts(grid: Grid) -> list[list[str]]:
    return [[cell.text for cell in row] for row in grid.rows]


def test_the_order_is_that_in_which_a_reader_asks() -> None:
    anchors = [one.anchor for one in report.document([GOOD]).sections]
    assert anchors == ["time-line", "comparison", "losses", "distributions", "method"]


def test_what_a_result_does_not_have_is_left_out() -> None:
    document = report.document([OLD])
    assert "losses" not in [one.anchor for one in document.sections]
    found = [b for b in blocks_of(document, "time-line") if isinstance(b, Chart)]
    assert {chart.title for chart in found} == {"Events of all trials"}
    assert document.outcome.rows[0][4].text == "–"


def test_the_outcome_counts_everything() -> None:
    rows = texts(report.document([BAD]).outcome)
    assert rows[0] == ["ipvs", "9", "120 of 108,000", "3 of 540", "0"]
    assert rows[2] == ["nftables", "9", "106 of 108,000", "3 of 540", "7"]


def test_every_chart_is_one_that_plotly_knows_and_has_its_table() -> None:
    charted = [
        block
        for loaded in ([GOOD], [BAD], [OLD], [BAD, GOOD])
        for section in report.document(loaded).sections
        for block in all_blocks(section.blocks)
        if isinstance(block, Chart)
    ]
    assert len(charted) > 20
    for chart in charted:
        go.Figure(chart.figure)  # refuses a property that there is not
        assert chart.grid.rows
        assert charts.key(chart.figure)
        for row in chart.grid.rows:
            assert len(row) == len(chart.grid.head)


def test_the_rates_add_up() -> None:
    shot = next(s for s in view.look([GOOD]).shots if s.case == "endpoint-crash")
    figure = timechart.rates(shot, (-100, 500))
    assert figure is not None
    bars = [trace for trace in figure["data"] if trace["type"] == "bar"]
    assert sum(sum(bar["y"]) for bar in bars) == shot.measurements[0].lost
    line = figure["data"][0]
    assert (line["x0"], line["dx"]) == (-990.0, 10.0)
    assert line["y"][0] == 2000.0  # 10 packets in 10 ms to each of two services
    assert line["y"][99] == 1700.0  # 3 of 20 are lost


def test_long_trials_have_their_steps_added_up() -> None:
    shot = view.look([GOOD]).shots[0]
    sent = tuple(10 for _ in range(2500))
    long = Series(service="s", start_ms=0, step_ms=10, sent=sent, lost=(1,) + (0,) * 2499)
    one = dataclasses.replace(shot.measurements[0], series=(long,))
    figure = timechart.rates(dataclasses.replace(shot, measurements=(one,)), (0, 1))
    assert figure is not None
    line = figure["data"][0]
    bar = next(trace for trace in figure["data"] if trace["type"] == "bar")
    assert line["dx"] == 50
    assert len(line["y"]) == 500 - 2
    assert set(line["y"]) == {1000.0}
    assert bar["y"][0] == 1


def test_all_charts_of_a_case_show_the_same_time() -> None:
    blocks = blocks_of(report.document([GOOD]), "time-line")
    of_case = "40 packets lost, 1 TCP failed"
    found = [b for b in blocks if isinstance(b, Chart) and b.title.endswith(of_case)]
    spans = {
        tuple(b.figure["layout"]["xaxis"]["range"])
        for b in blocks
        if isinstance(b, Chart) and "lost" in b.title and "yaxis2" in b.figure["layout"]
    }
    assert found
    assert len(spans) == 2  # of the trials in the middle, and of those that lost most


def test_the_trial_in_the_middle_is_a_valid_one() -> None:
    shots = [s for s in view.look([BAD]).shots if s.case == "endpoint-crash"]
    mine = [s for s in shots if s.column == "nftables"]
    middle, worst = view.typical(mine), view.worst(mine)
    assert middle is not None
    assert worst is not None
    assert middle.problems == ()
    assert worst.problems != ()


def test_places_in_the_order_of_the_way() -> None:
    places = ["lan>node2", "node2>a", "node1", "client1>node1", "a", "lan", "client1", "node1>lan"]
    order = losses.ranks(places)
    assert sorted(places, key=order.__getitem__) == [
        "client1",
        "client1>node1",
        "node1",
        "node1>lan",
        "lan",
        "lan>node2",
        "node2>a",
        "a",
    ]


def test_a_ring_of_links_ends() -> None:
    assert set(losses.ranks(["a>b", "b>a"])) == {"a", "b", "a>b", "b>a"}


def test_the_way_shows_places_causes_and_what_is_unexplained() -> None:
    ways = [b for b in blocks_of(report.document([BAD]), "losses") if isinstance(b, Way)]
    last = ways[-1]
    assert (last.sent, last.received, last.unexplained) == (18000, 18000 - 106, 7)
    assert [(hop.place, hop.lost) for hop in last.hops] == [("node1", 32), ("node1>web-1", 67)]
    assert last.hops[0].causes == ("32 stale connection entry",)
    assert last.sent == last.received + last.unexplained + sum(hop.lost for hop in last.hops)


def test_pods_are_one_place_in_the_diagram() -> None:
    assert losses.general("node1>shop-dns-abc", {"shop-dns-abc"}) == "node1>a pod"
    assert losses.general("node1", {"shop-dns-abc"}) == "node1"


def test_losses_of_trials_add_up() -> None:
    one = Loss(place="node1", cause=Cause.RULE, packets=2, witness="nft")
    back = dataclasses.replace(one, direction="back")
    assert losses.added([one, back, one]) == (dataclasses.replace(one, packets=4), back)


def test_witnesses_of_trials_add_up() -> None:
    said = (
        "nft on node1: 3 (and 2 others); drop monitor: 1",
        "",
        "nft on node1: 1,000",
        "records",
    )
    assert losses.heard(said) == "nft on node1: 1,003 (and 2 others); drop monitor: 1; records"
    pods = [f"pod-{number} was gone: {number}" for number in range(1, 21)]
    told = losses.heard(pods)
    assert told.startswith("pod-20 was gone: 20; pod-19 was gone: 19; ")
    assert told.endswith("; and 14 more")


def never_recovered() -> Loaded:
    """Return a result in which two trials of three did not recover, in one mode."""
    sample = samples.comparison()
    trials = tuple(
        trial
        if (trial.mode, trial.scenario) != ("ipvs", "endpoint-crash") or trial.number == 1
        else dataclasses.replace(
            trial,
            measurements=tuple(
                dataclasses.replace(one, failover_time_ms=None, recovered=False)
                if (one.node, one.traffic) == ("hit", "udp")
                else one
                for one in trial.measurements
            ),
        )
        for trial in sample.trials
    )
    rows = summary.summarise(trials)
    return samples.loaded(dataclasses.replace(sample, trials=trials, summary=rows), "never")


def test_what_never_recovered_has_no_median_of_those_that_did() -> None:
    blocks = blocks_of(report.document([never_recovered()]), "distributions")
    (spread,) = [
        b for b in blocks if isinstance(b, Chart) and b.description.startswith("Failover")
    ]
    (row,) = [row for row in texts(spread.grid) if row[:2] == ["ipvs", "hit"]]
    assert row[2:] == ["3", "156.0", "–", "–", "2 did not recover"]


def test_a_method_that_has_no_time_says_so() -> None:
    sample = never_recovered().results
    assert isinstance(sample, ResultSet)
    row = next(row for row in sample.summary if row.mode == "ipvs" and row.lost)
    never, known = (Spread(median=median, min=1.0, max=None) for median in (None, 2.0))
    methods = Methods(
        plbm_ms=never,
        tblm_ms=known,
        reset_ms=None,
        first_route_ms=None,
        full_ms=None,
        programmed_ms=None,
        recovered_ms=None,
    )
    rows = (dataclasses.replace(row, methods=methods),)
    blocks = certainty.blocks(dataclasses.replace(sample, summary=rows))
    grid = next(b for b in all_blocks(blocks) if isinstance(b, Grid) and "method" in b.title)
    assert texts(grid)[0][3:7] == ["not recovered", "not recovered", "2 (1–?)", "–"]


def test_connect_times_are_of_valid_trials() -> None:
    counted = []
    for loaded in (GOOD, BAD):
        blocks = blocks_of(report.document([loaded]), "distributions")
        chart = next(b for b in blocks if isinstance(b, Chart) and "connections" in b.title)
        counted.append({row[0]: row[1] for row in texts(chart.grid)})
    assert counted[0]["ipvs"] == counted[1]["ipvs"]
    assert counted[0]["nftables"] == "537"  # 9 trials of 60, of which 3 failed
    assert counted[1]["nftables"] == "478"  # without the one that is not valid


def test_results_side_by_side_are_columns_side_by_side() -> None:
    document = report.document([BAD, GOOD])
    grid = next(b for b in blocks_of(document, "comparison") if isinstance(b, Grid))
    assert grid.head[2:] == (
        "bad: ipvs",
        "good: ipvs",
        "bad: iptables",
        "good: iptables",
        "bad: nftables",
        "good: nftables",
    )
    row = next(row for row in texts(grid) if row[:2] == ["endpoint-crash", "hit"])
    assert row[2] == row[3] == "40 (35–45) lost\n176 (156–196) ms"
    assert row[6].startswith("not valid")
    assert document.warnings == ("bad: not every row is valid: see the notes at the end",)


def test_every_row_of_a_table_says_what_it_is_of() -> None:
    found = comparisons.section([GOOD]).blocks[0]
    assert isinstance(found, Grid)
    assert [row[:2] for row in texts(found)][:2] == [["baseline", "hit"], ["baseline", "other"]]


def test_a_trial_that_is_not_valid_is_named_and_not_in_the_distributions() -> None:
    document = report.document([BAD])
    invalid = [b for b in blocks_of(document, "method") if isinstance(b, Grid) and "why" in b.head]
    expected = ["nftables", "endpoint-crash", "3", "udp from hit: receivers dropped 7 packets"]
    assert texts(invalid[0]) == [expected]
    spread = next(b for b in blocks_of(document, "distributions") if isinstance(b, Chart))
    counts = {(row[0], row[1]): row[2] for row in texts(spread.grid)}
    assert counts["nftables", "hit"] == "2"
    assert counts["ipvs", "hit"] == "3"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2)."""
    first, second = sorted((luminance(one), luminance(other)))
    return (second + 0.05) / (first + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", charts.PALETTE)
def test_colours_are_seen_on_both_backgrounds(colour: str) -> None:
    assert min(contrast(colour, ground) for ground in charts.BACKGROUNDS) >= 3
    style = Path(kproxy.__file__).with_name("palette.css").read_text()
    assert f"--raised: light-dark({', '.join(charts.BACKGROUNDS)})" in style


def test_markdown_holds_the_tables_and_nothing_breaks_out_of_them() -> None:
    text = markdown.markdown(report.document([BAD, GOOD]))
    assert "| endpoint-crash | hit | 40 (35–45) lost<br>176 (156–196) ms |" in text
    assert "→ **node1: 32 stale connection entry** →" in text
    tricky = samples.loaded(samples.comparison(), "a|b <i>*x*")
    assert "a\\|b &lt;i>\\*x\\*" in markdown.markdown(report.document([tricky]))


def test_csv_has_a_line_for_every_measurement() -> None:
    lines = csvfile.table([GOOD, OLD]).splitlines()
    head = lines[0].split(",")
    assert len(lines) == 1 + 2 * 27 * 3
    crash = next(line.split(",") for line in lines if ",endpoint-crash," in line)
    row = dict(zip(head, crash, strict=True))
    assert (row["result"], row["mode"], row["node"], row["lost"]) == ("good", "ipvs", "hit", "35")
    assert row["losses"] == "24 node1>web-1: neighbour does not answer; 11 node1: stale " + (
        "connection entry"
    )
    assert (row["late"], row["unexplained"], row["outside_fault"]) == ("0", "0", "")
    tcp = next(line.split(",") for line in lines if ",tcp-connect," in line)
    assert dict(zip(head, tcp, strict=True))["sent"] == ""


def test_csv_says_which_losses_were_on_the_way_back() -> None:
    sample = samples.comparison(trials=1)
    back = Loss(place="node1", cause=Cause.RULE, packets=3, direction="back")
    one = dataclasses.replace(sample.trials[0].measurements[0], lost=3, losses=(back,))
    trial = dataclasses.replace(sample.trials[0], measurements=(one,))
    text = csvfile.table([samples.loaded(dataclasses.replace(sample, trials=(trial,)), "x")])
    assert '"3 node1, on the way back: dropped by a rule"' in text


def test_differences_are_told_once_and_only_where_a_test_shows_them() -> None:
    rows = [dataclasses.replace(row, differences=()) for row in samples.comparison().summary]
    bare = dataclasses.replace(samples.comparison(), summary=tuple(rows))
    less, more, unclear = (
        Difference(
            figure="failover_time_ms", mode=mode, verdict=verdict, p=0.001, corrected_p=0.01
        )
        for mode, verdict in (
            ("iptables", Verdict.LESS),
            ("ipvs", Verdict.GREATER),
            ("nftables", Verdict.NOT_SHOWN),
        )
    )
    chosen = [i for i, row in enumerate(rows) if row.scenario == "endpoint-crash"]
    told = {"ipvs": (less, unclear), "iptables": (more,), "nftables": (unclear,)}
    for i in chosen:
        if (rows[i].node, rows[i].traffic) == ("hit", "udp"):
            rows[i] = dataclasses.replace(rows[i], differences=told[rows[i].mode])
    results = dataclasses.replace(samples.comparison(), summary=tuple(rows))
    one, other = samples.loaded(results, "one"), samples.loaded(bare, "other")
    for loaded, mode in (([one], "{}"), ([one, other], "one: {}")):
        blocks = blocks_of(report.document(loaded), "comparison")
        grid = next(b for b in blocks if isinstance(b, Grid) and "Differences" in b.title)
        verdict = f"{mode} less than {mode}".format("ipvs", "iptables")
        assert texts(grid) == [["endpoint-crash", "hit, udp", "failover time", verdict, "0.01"]]
        assert "none was shown: 1; with too few trials: 0." in grid.note
