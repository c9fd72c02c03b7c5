"""The chain as a table for a terminal: one row for each link, from the proxy down to etcd.

A row reads: what was lost → who is to keep it, and how long it took until it was noticed and
repaired → what users lost, at three vantage points → what did not work meanwhile. Where trials
differ a figure is the median, with the range behind it. Pauses shorter than ``LEAST_MS`` are not
told: changes are made every half second only.
"""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from kproxy.traffic.chainset import ChainSet, LinkPause, LinkRow, LinkTraffic
from kproxy.traffic.resultset import Spread

LEAST_MS = 50.0
VANTAGES = ("hit", "other", "outside")
_UNITS = {"udp": "packets", "tcp-established": "requests", "tcp-connect": "connections"}


def units(traffic: str) -> str:
    """Return what is counted of a kind of traffic; the kind itself, if a later version made it."""
    return _UNITS.get(traffic, traffic)


def seconds(ms: float) -> str:
    """Return a time as people say it: ``7 ms``, ``0.17 s``, ``12.3 s``, ``350 s``."""
    if ms < 100:
        return f"{ms:.0f} ms"
    if ms < 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms / 1000:.1f} s" if ms < 100_000 else f"{ms / 1000:.0f} s"


def spread_text(spread: Spread | None) -> str:
    """Return the median, and the range where the trials differ; "–" where there is none."""
    if spread is None:
        return "–"
    if spread.median is None:
        return "not over"
    text = seconds(spread.median)
    least, most = (
        seconds(value) if value is not None else "?" for value in (spread.min, spread.max)
    )
    return text if least == most else f"{text} ({least}–{most})"


def table(results: ChainSet) -> Table:
    """Return the table."""
    found = Table(title="The chain: what the loss of each link costs", title_justify="left")
    found.add_column("lost", ratio=9)
    found.add_column("kept by, noticed → repaired", ratio=11)
    found.add_column("users lost", ratio=12)
    found.add_column("not working meanwhile", ratio=11)
    for row in _rows(results):
        found.add_row(_link(row), _keeper(row), _users(results, row), _meanwhile(row))
        found.add_section()
    return found


def applies(results: ChainSet) -> bool:
    """Return whether there is anything to show; what monitoring adds is in a table of its own."""
    return bool(_rows(results))


def _rows(results: ChainSet) -> list[LinkRow]:
    return [row for row in results.summary if row.watched is None]


def _link(row: LinkRow) -> Text:
    text = Text(row.title, style="bold")
    if not row.valid:
        text.append("\nnot valid", style="bold red")
    return text


def _keeper(row: LinkRow) -> str:
    if not row.guarantor:
        return ""
    if row.detect_ms is None and row.repair_ms is None:
        return row.guarantor
    noticed = spread_text(row.detect_ms) if row.detect_ms is not None else "nobody"
    times = f"{noticed} → {spread_text(row.repair_ms)}"
    if row.repaired_by.startswith(row.guarantor):
        return f"{row.repaired_by}\n{times}"
    if row.repaired_by in ("", "by hand"):
        return f"{row.guarantor}\n{times}"
    return f"{row.guarantor}\n{times}\nby {row.repaired_by}"


def _users(results: ChainSet, row: LinkRow) -> Text:
    gone = _gone(row)
    lines, bad = [], False
    for vantage in VANTAGES:
        mine = [one for one in row.traffic if one.vantage == vantage]
        if not mine:
            continue
        if vantage in gone:
            lines.append(f"{vantage}: gone with its node")
            continue
        losses = [text for one in mine if (text := _loss(one))]
        bad = bad or bool(losses)
        lines.append(f"{vantage}: {'; '.join(losses) if losses else 'nothing'}")
    if not bad and not gone:
        return Text("nothing", style="green")
    broken = any(one.lost for one in _promised(results, row))
    return Text("\n".join(lines), style="bold red" if broken else "yellow")


def _promised(results: ChainSet, row: LinkRow) -> list[LinkTraffic]:
    """Return the traffic of which nothing should be lost."""
    kinds = results.parameters.get("lossless", {}).get(row.link, ())
    return [one for one in row.traffic if one.traffic in kinds]


def _loss(one: LinkTraffic) -> str:
    if not one.lost:
        return ""
    text = f"{one.lost} of {one.sent} {units(one.traffic)}"
    if one.traffic == "tcp-connect" or one.failover_time_ms is None:
        return text
    return f"{text}, {spread_text(one.failover_time_ms)}"


def _gone(row: LinkRow) -> set[str]:
    """Return the vantage points that went with their node."""
    return {note.partition(":")[0] for note in row.notes if note.endswith(": gone with its node")}


def _meanwhile(row: LinkRow) -> Text:
    lines = []
    changes = _where(row.frozen)
    if changes:
        lines.append(f"changes frozen: {changes}")
    if row.no_writes_ms is not None and _long(row.no_writes_ms):
        lines.append(f"no writes: {spread_text(row.no_writes_ms)}")
    pods = _where(row.no_pods)
    if pods:
        lines.append(f"no new pods: {pods}")
    if not lines:
        return Text("everything worked", style="green")
    return Text("\n".join(lines), style="yellow")


def _where(pauses: Sequence[LinkPause]) -> str:
    """Return how long something paused on each node; once, if it was everywhere about the same."""
    told = [(one.node, spread_text(one.over_ms)) for one in pauses if _long(one.over_ms)]
    if not told:
        return ""
    if len(told) == len(pauses) > 1 and len({text for _, text in told}) == 1:
        return f"{told[0][1]} everywhere"
    return ", ".join(f"{text} on {node}" for node, text in told)


def _long(spread: Spread) -> bool:
    return spread.max is None or spread.max >= LEAST_MS


def notes(results: ChainSet) -> list[str]:
    """Return what must be known to read the table: accuracy, and whatever is not valid."""
    lines = list(_accuracy(results.summary))
    clock, seed = results.kernel.get("clock"), results.parameters.get("seed")
    chance = "left to chance" if seed is None else f"seed {seed}"
    profile, mode = (results.parameters.get(name, "") for name in ("profile", "mode"))
    lines.append(
        f"Mode {mode}; {profile} timings; clock: {clock}; {chance}; "
        f"Linux {results.kernel.get('release')}."
    )
    if clock == "virtual":
        lines.append(
            "Virtual clock: computing takes only what the cost model says "
            "(proxies, backends, slices); API servers, etcd and managers compute for free."
            if results.parameters.get("costs")
            else "Virtual clock, no cost model: these are the times of the protocols."
        )
    lines += [f"Left out: {name}: {why}." for name, why in results.left_out.items()]
    lines += _promises(results)
    for trial in results.trials:
        lines += [f"NOT VALID: {trial.link} trial {trial.number}: {p}" for p in trial.problems]
    return lines


def _accuracy(rows: Iterable[LinkRow]) -> Iterable[str]:
    packets = [one for row in rows for one in row.traffic if one.traffic == "udp"]
    accuracies = sorted({one.accuracy_ms for one in packets if one.accuracy_ms})
    if accuracies:
        yield (
            f"hit, other: a pod's place on the hit node, and on another one; outside: through the "
            f"load balancer. Outages of packets shorter than {accuracies[0]:.0f} ms may pass "
            "unseen; changes are made every 0.5 s, pods every 3 s on each node."
        )


def _promises(results: ChainSet) -> list[str]:
    lines = []
    if results.trials and not any(trial.link == "baseline" for trial in results.trials):
        lines.append("No baseline was run: whether the tester itself loses packets is not known.")
    for row in results.summary:
        for one in _promised(results, row):
            if one.lost:
                lines.append(
                    f"LOST: {row.link}, {one.vantage}: {one.lost} {units(one.traffic)}, where "
                    "nothing should be lost."
                )
    return lines
