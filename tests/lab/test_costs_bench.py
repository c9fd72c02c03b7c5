"""``kproxy bench costs`` measures every place of a cost model, on processes that are real."""

from pathlib import Path

import pytest

from kproxy import costs
from kproxy.lab import costbench
from kproxy.lab.benchcluster import Size

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]

RUNS = 2
SMALL, LARGER = Size(1, 2), Size(3, 2)


def test_every_place_is_measured_so_often_at_every_size(tmp_path: Path) -> None:
    said: list[str] = []
    samples = costbench.measure(
        ("iptables",), (SMALL, LARGER), RUNS, tmp_path / "state", said.append
    )
    counts: dict[tuple[str, str, str, int, int], int] = {}
    for one in samples:
        key = (one.process, one.place, one.mode, one.services, one.endpoints)
        counts[key] = counts.get(key, 0) + 1
    sized = {
        (costs.PROXY, place, mode, size.services, size.endpoints): many
        for size in (SMALL, LARGER)
        for place, mode, many in (
            (costs.LIST, "", 2 * RUNS),
            (costs.SYNC_FULL, "iptables", RUNS),
            (costs.SYNC_ADOPT, "iptables", RUNS),
            (costs.SYNC_PARTIAL, "iptables", RUNS),
        )
    }
    assert counts == sized | {
        (costs.PROXY, costs.START, "", 0, 0): 4 * RUNS,
        (costs.RESPONDER, costs.START, "", 0, 0): RUNS,
        (costs.MANAGER, costs.SLICE, "", 0, 0): RUNS,
    }
    # In virtual time computing takes none; but what comes later is never earlier.
    assert all(one.seconds >= 0 for one in samples)
    assert f"run {RUNS} of {RUNS}: {LARGER}, iptables" in said
    assert not (tmp_path / "state").exists()
