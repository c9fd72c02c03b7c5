"""What random kills came to, in a few lines for a terminal."""

from collections import Counter

from kproxy.reports.chaintable import seconds, units
from kproxy.traffic.soakset import SoakSet


def lines(results: SoakSet) -> list[str]:
    """Return what was done, what was found, and every promise that was broken."""
    roles = Counter(one.role for one in results.kills)
    killed = ", ".join(f"{count} {role}" for role, count in sorted(roles.items()))
    writes = results.writes
    settled = "never" if results.settled_ms is None else seconds(results.settled_ms)
    hours = results.parameters["killed_for_s"] / 3600
    said = [
        f"{hours:.2f} h ({results.kernel.get('clock')} clock, seed {results.parameters['seed']}): "
        f"{len(results.kills)} processes killed: {killed}.",
        f"Writes: {writes.acknowledged} acknowledged, {writes.refused} refused, "
        f"{writes.unknown} without an answer.",
        f"Pods and ReplicaSets changed {results.changes} times; everything as declared {settled} "
        "after the end.",
    ]
    for one in results.measurements:
        sent = one.tcp.attempted if one.tcp else one.sent or 0
        lost = one.tcp.failed if one.tcp else one.lost or 0
        said.append(f"{one.node}: {lost} of {sent} {units(one.traffic)} lost.")
    if not results.violations:
        return [*said, "Every promise was kept."]
    return [*said, *(f"BROKEN: {one}" for one in results.violations)]
