"""A trial's account holds what belongs to that trial, though record files go on growing."""

from pathlib import Path

from kproxy.lab import generators
from kproxy.lab.accounts import Accounts
from kproxy.traffic import recordfile, records


def test_drops_belong_to_the_trial_in_which_they_were(tmp_path: Path) -> None:
    """The kernel counts those of a socket from its beginning."""
    flow = 1 * generators.FLOWS_PER_CLIENT
    writer = recordfile.RecordWriter(
        tmp_path / "pod.received", recordfile.KIND_RECEIVED, records.RECEIVED_SIZE, 100, "pod"
    )
    accounts = Accounts(tmp_path, {"hit": 1}, 1000.0)
    seen = []
    for trial, drops in ((1, 0), (2, 5), (3, 5), (4, 7)):
        writer.append(records.section(trial, 0, 0), 1)
        packet = records.Received(flow, 0, 10**9, 2 * 10**9, "pod")
        writer.append(records.pack_received(packet), 1)
        writer.drops = drops
        writer.flush()
        received, (state,) = accounts._received(trial)
        assert [len(arrived) for arrived in received["hit"].values()] == [1]
        seen.append(state.drops)
    assert seen == [0, 5, 0, 2]
    writer.close()
