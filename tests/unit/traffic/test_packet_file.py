"""The file of a trial's packets: read back as a user does; parts put together by the parts."""

from pathlib import Path

import numpy as np
import pytest

from kproxy.traffic import packetfile, parts, recordfile, records

MS = 1_000_000
FLOWS = (70_000, 70_001, 70_002)
PACKETS = 40
START = 5_000 * MS


def sent_at(k: int) -> int:
    return START + k * MS


def sent_file(path: Path, unsent: int = 35) -> None:
    table = records.sent_table(FLOWS, 1_000_000)
    writer = recordfile.RecordWriter(
        path, recordfile.KIND_SENT, records.SPAN.size, 100, "udp_send", table
    )
    for k in range(PACKETS):
        status = records.STATUS_NOT_SENT if k == unsent else records.STATUS_SENT
        writer.append(records.SPAN.pack(status, 1, k, sent_at(k)), 1)
    writer.close()


def received_file(path: Path, name: str, arrivals: list[tuple[int, int]], trial: int = 1) -> None:
    """Write (packet of the plan, delay) in the order of arrival."""
    writer = recordfile.RecordWriter(
        path, recordfile.KIND_RECEIVED, records.RECEIVED_SIZE, 1000, name
    )
    writer.append(records.section(trial, 0, 0), 1)
    for k, delay in arrivals:
        flow, seq = FLOWS[k % len(FLOWS)], k // len(FLOWS)
        one = records.Received(flow, seq, sent_at(k), sent_at(k) + delay, name)
        writer.append(records.pack_received(one), 1)
    writer.close()


@pytest.fixture
def trial(tmp_path: Path) -> tuple[Path, list[Path]]:
    """Packet 3 is lost, 35 was not sent, 7 came twice (to both pods), 9 came after 11."""
    order = [k for k in range(PACKETS) if k not in (3, 35, 9)]
    order.insert(order.index(11) + 1, 9)
    sent_file(tmp_path / "sent")
    first = [(k, MS // 2) for k in order if k % 2]
    second = [(k, MS) for k in order if not k % 2]
    second.insert(4, (7, 2 * MS))
    received_file(tmp_path / "r1", "pod-1", first)
    received_file(tmp_path / "r2", "pod-2", second)
    return tmp_path / "sent", [tmp_path / "r1", tmp_path / "r2"]


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_every_arrival_comes_with_its_packet(
    trial: tuple[Path, list[Path]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LOOK_AHEAD_NS", 5 * MS)
    sent, received = trial
    seen: dict[str, list[tuple[int, int]]] = {"pod-1": [], "pod-2": []}
    number = 0
    for part, arrived in parts.parts(sent, received, 1, size=size):
        known = {(int(one["flow"]), int(one["seq"])) for one in part}
        number += len(part)
        for pod, packets in arrived.items():
            mine = [(int(one["flow"]), int(one["seq"])) for one in packets]
            assert known.issuperset(mine)
            seen[pod] += mine
    assert number == PACKETS
    for pod, path in zip(seen, received, strict=True):
        whole, _ = records.received_array(path, 1)
        assert sorted(seen[pod]) == sorted((int(p["flow"]), int(p["seq"])) for p in whole)


def test_strangers_come_with_the_last_part(trial: tuple[Path, list[Path]]) -> None:
    sent, received = trial
    received_file(received[1], "pod-2", [(PACKETS + 5, MS)])
    found = [arrived["pod-2"] for _, arrived in parts.parts(sent, received, 1, size=7)]
    assert [len(one) for one in found] == [0] * (len(found) - 1) + [1]


@pytest.mark.parametrize("size", [3, 1000])
def test_a_user_reads_each_packets_fate(
    trial: tuple[Path, list[Path]], tmp_path: Path, size: int
) -> None:
    sent, received = trial
    path = tmp_path / "packets.npz"
    found = parts.parts(sent, received, 1, size=size)
    assert packetfile.write(path, found, ["pod-1", "pod-2"]) == PACKETS
    with np.load(path) as file:
        table = {name: file[name] for name, _ in packetfile.COLUMNS}
        pods, first = file["pods"], int(file["first_ns"])
    k = np.arange(PACKETS)
    assert table["flow"].tolist() == [FLOWS[i % 3] for i in k]
    assert table["seq"].tolist() == (k // 3).tolist()
    assert (first + np.cumsum(table["gap_ns"])).tolist() == [sent_at(i) for i in k]
    assert np.flatnonzero(table["status"] != records.STATUS_SENT).tolist() == [35]
    lost = table["delay_100ns"] == packetfile.NOT_ARRIVED
    assert np.flatnonzero(lost).tolist() == [3, 35]
    assert np.flatnonzero(table["copies"] == 0).tolist() == [3, 35]
    assert np.flatnonzero(table["copies"] == 2).tolist() == [7]
    assert table["delay_100ns"][7] * packetfile.DELAY_UNIT_NS == MS // 2
    assert table["delay_100ns"][8] * packetfile.DELAY_UNIT_NS == MS
    served = pods[table["pod"][~lost]]
    assert served.tolist() == [f"pod-{1 if i % 2 else 2}" for i in k[~lost]]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_left_out_after_a_stall_moves_no_later_packet(tmp_path: Path, size: int) -> None:
    """The first two left late, the next two had been due before that, and were left out."""
    left_out, sent = records.STATUS_NOT_SENT, records.STATUS_SENT
    spans = [(sent, 0, 9 * MS), (left_out, 2, 4 * MS), (sent, 4, 10 * MS), (sent, 6, 11 * MS)]
    table = records.sent_table(FLOWS, 1_000_000)
    writer = recordfile.RecordWriter(
        tmp_path / "sent", recordfile.KIND_SENT, records.SPAN.size, 9, "udp_send", table
    )
    for status, first, at in spans:
        writer.append(records.SPAN.pack(status, 2, first, START + at), 1)
    writer.close()
    received_file(tmp_path / "r1", "pod-1", [])
    path = tmp_path / "packets.npz"
    found = parts.parts(tmp_path / "sent", [tmp_path / "r1"], 1, size=size)
    packetfile.write(path, found, ["pod-1"])
    with np.load(path) as file:
        times = file["first_ns"] + np.cumsum(file["gap_ns"], dtype="i8")
    assert (times - START).tolist() == [at * MS for at in (9, 9, 9, 9, 10, 10, 11, 11)]


def test_of_copies_at_two_pods_the_first_says_who_had_it(tmp_path: Path) -> None:
    sent_file(tmp_path / "sent", unsent=-1)
    received_file(tmp_path / "r1", "pod-1", [(0, 2 * MS), (1, MS)])
    received_file(tmp_path / "r2", "pod-2", [(0, MS), (1, 2 * MS)])
    path = tmp_path / "packets.npz"
    found = parts.parts(tmp_path / "sent", [tmp_path / "r1", tmp_path / "r2"], 1)
    packetfile.write(path, found, ["pod-1", "pod-2"])
    with np.load(path) as file:
        assert file["pod"][:2].tolist() == [1, 0]
        assert file["copies"][:3].tolist() == [2, 2, 0]
        assert file["delay_100ns"][:2].tolist() == [MS // packetfile.DELAY_UNIT_NS] * 2


def test_a_failure_leaves_no_file(trial: tuple[Path, list[Path]], tmp_path: Path) -> None:
    sent, received = trial
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match="'pod-2' is not in list"):
        packetfile.write(tmp_path / "p.npz", parts.parts(sent, received, 1), ["pod-1"])
    assert set(tmp_path.iterdir()) == before
