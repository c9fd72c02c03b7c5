"""The table of what monitoring adds; the whole of it is compared with a kept one."""

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from kproxy.reports import chaintable, watchedtable
from kproxy.traffic.chainset import ChainSet, LinkRow, LinkTraffic, WatchedRow
from kproxy.traffic.resultset import Spread

GOLDEN = Path(__file__).parent / "watched_table.txt"


def spread(value: float) -> Spread:
    return Spread(median=value, min=value, max=value)


def lost(packets: int, connections: int = 0) -> tuple[LinkTraffic, ...]:
    return tuple(
        LinkTraffic(
            vantage=vantage,
            traffic=traffic,
            sent=1000,
            lost=count,
            failover_time_ms=None,
            accuracy_ms=None,
        )
        for vantage in ("hit", "other")
        for traffic, count in (("udp", packets), ("tcp-connect", connections))
    )


def watched(variant: str) -> WatchedRow:
    return WatchedRow(
        fault="proxy-hung",
        title="proxy hung",
        variant=variant,
        alert="",
        action="",
        seen_ms=None,
        alert_ms=None,
        action_ms=None,
        verified_ms=None,
        hand_ms=None,
        waited_ms=None,
    )


ALONE = LinkRow(
    link="proxy-hung-alone",
    title="proxy hung: nobody watches",
    guarantor="nobody: by hand",
    trials=1,
    noticed_by="",
    repaired_by="",
    detect_ms=None,
    repair_ms=None,
    traffic=lost(400, 8),
    frozen=(),
    no_writes_ms=None,
    no_pods=(),
    notes=(),
    valid=True,
    watched=dataclasses.replace(watched("alone"), waited_ms=180_000.0),
)
REMEDIATED = dataclasses.replace(
    ALONE,
    link="proxy-hung-remediated",
    repaired_by="remediation, restart-proxy",
    repair_ms=spread(3100.0),
    traffic=lost(10),
    watched=dataclasses.replace(
        watched("remediated"),
        alert="KproxyProxyUnreachable",
        action="restart-proxy",
        seen_ms=spread(1100.0),
        alert_ms=spread(2200.0),
        action_ms=spread(2300.0),
        verified_ms=spread(4600.0),
    ),
)
MIXIN = dataclasses.replace(
    ALONE,
    link="proxy-hung-mixin",
    repaired_by="by hand",
    repair_ms=spread(1_080_000.0),
    traffic=lost(2400, 40),
    watched=dataclasses.replace(
        watched("mixin"),
        alert="KubeProxyInstanceUnreachable",
        seen_ms=spread(30_000.0),
        alert_ms=spread(990_000.0),
        hand_ms=60_000.0,
    ),
)
ITSELF = dataclasses.replace(
    MIXIN,
    repaired_by="the proxy's next full sync",
    repair_ms=spread(16_900.0),
    traffic=lost(0),
    watched=dataclasses.replace(watched("mixin"), fault="weights", title="weights at 0"),
)


def results(*rows: LinkRow) -> ChainSet:
    return ChainSet(kernel={}, host={}, parameters={}, trials=(), summary=rows)


def shown(found: ChainSet, width: int = 110) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(watchedtable.table(found))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def test_the_whole_table_is_as_it_was_kept() -> None:
    assert shown(results(ALONE, REMEDIATED, MIXIN, ITSELF)) == GOLDEN.read_text()


def test_it_fits_into_eighty_columns() -> None:
    text = shown(results(ALONE, REMEDIATED, MIXIN, ITSELF), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_it_is_shown_only_where_there_is_something() -> None:
    plain = dataclasses.replace(ALONE, watched=None)
    assert not watchedtable.applies(results(plain))
    assert watchedtable.applies(results(plain, ALONE))
    assert not chaintable.applies(results(ALONE))
    assert chaintable.table(results(plain, ALONE)).row_count == 1


def test_who_repaired_it_before_the_action_is_named() -> None:
    row = dataclasses.replace(REMEDIATED, repaired_by="the proxy's next full sync")
    text = " ".join(shown(results(row), width=200).split())
    assert "by the proxy's next full sync" in text
    assert "by the proxy" not in shown(results(REMEDIATED), width=200)


def test_what_is_not_valid_is_told() -> None:
    assert "not valid" in shown(results(dataclasses.replace(ALONE, valid=False)))
