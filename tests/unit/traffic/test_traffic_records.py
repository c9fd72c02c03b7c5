"""Record files: what the readers make of whole, growing, cut and foreign ones."""

import struct
from pathlib import Path

import numpy as np
import pytest

from kproxy.errors import MeasurementError
from kproxy.traffic import receivedfile, recordfile, records, udp_receive

SIZE = records.RECEIVED_SIZE
PACKET = records.Received(1, 2, 1_000, 5_000_000_123, "pod")
FLOWS = (7, 8)
FAILED = records.STATUS_FAILED | 105 << 8
SPANS = ((records.STATUS_SENT, 3, 50), (FAILED, 1, 60), (records.STATUS_NOT_SENT, 2, 70))
SENT = [
    records.Sent(records.STATUS_SENT, 0, 7, 0, 50),
    records.Sent(records.STATUS_SENT, 0, 8, 0, 50),
    records.Sent(records.STATUS_SENT, 0, 7, 1, 50),
    records.Sent(records.STATUS_FAILED, 105, 8, 1, 60),
    records.Sent(records.STATUS_NOT_SENT, 0, 7, 2, 70),
    records.Sent(records.STATUS_NOT_SENT, 0, 8, 2, 1_000_070),
]


def sent_file(path: Path, rounds: int, capacity: int = 10) -> None:
    """Write three spans, six packets, so many times."""
    table = records.sent_table(FLOWS, 1_000_000)  # 1,000 packets/s
    writer = recordfile.RecordWriter(
        path, recordfile.KIND_SENT, records.SPAN.size, capacity, "udp_send", table
    )
    k = 0
    for status, number, ns in SPANS * rounds:
        writer.append(records.SPAN.pack(status, number, k, ns), 1)
        k += number
    writer.close()


def received_file(path: Path, *parts: bytes) -> None:
    writer = recordfile.RecordWriter(path, recordfile.KIND_RECEIVED, SIZE, 100, "demo/web-1")
    for part in parts:
        writer.append(part, len(part) // SIZE)
    writer.close()


def test_sent_records_come_back_packet_by_packet(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 1)
    assert records.read_sent(tmp_path / "s") == SENT


def test_packets_of_the_plan_can_be_chosen(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 2)
    whole = records.read_sent(tmp_path / "s")
    assert len(whole) == 12
    for start in range(13):
        assert records.read_sent(tmp_path / "s", start=start, number=4) == whole[start : start + 4]


def test_a_batch_whose_count_was_not_written_counts(tmp_path: Path) -> None:
    """The writer is killed between copying records and counting them."""
    sent_file(tmp_path / "s", 1)
    with (tmp_path / "s").open("r+b") as file:
        file.seek(24)
        file.write(struct.pack("<Q", 1))
    assert records.read_sent(tmp_path / "s") == SENT


def test_records_without_room_are_an_error(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 4)
    with pytest.raises(MeasurementError, match=r"2 records found no room in 10.*raise"):
        records.read_sent(tmp_path / "s")


@pytest.mark.parametrize("size", [0, 100, 4096, 8192 + 30])
def test_a_cut_file_is_an_error(tmp_path: Path, size: int) -> None:
    sent_file(tmp_path / "s", 3)
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:size])
    with pytest.raises(MeasurementError, match="cut"):
        records.read_sent(tmp_path / "s")


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 1)
    with pytest.raises(MeasurementError, match="not a record file of kind 3"):
        records.read_tcp(tmp_path / "s")
    (tmp_path / "t").write_bytes(b"hello" * 2000)
    with pytest.raises(MeasurementError, match="not a record file"):
        records.read_sent(tmp_path / "t")
    with pytest.raises(MeasurementError, match="No such file"):
        records.read_sent(tmp_path / "nowhere")


def test_arrival_times_are_converted_by_the_last_section(tmp_path: Path) -> None:
    one = records.pack_received(PACKET)
    first, second = records.section(7, -1000, 5), records.section(7, -3000, 2)
    received_file(tmp_path / "r", first, one, second, one + one)
    packets, state = records.read_received(tmp_path / "r", 7)
    times = [PACKET.received_ns + offset for offset in (-1000, -3000, -3000)]
    assert [p.received_ns for p in packets] == times
    assert {p.pod for p in packets} == {"demo/web-1"}
    assert state == records.ReceiverState("demo/web-1", 5, 0, 0, 5)


def test_only_the_asked_trial_is_read(tmp_path: Path) -> None:
    one = records.pack_received(PACKET)
    first, second = records.section(1, -9, 1), records.section(2, -5, 8)
    received_file(tmp_path / "r", first, one + one, second, one, first, one)
    found, state = records.read_received(tmp_path / "r", 1)
    assert [p.received_ns - PACKET.received_ns for p in found] == [-9, -9, -9]
    assert state.clock_error_ns == 1
    (packet,) = records.read_received(tmp_path / "r", 2)[0]
    assert packet.received_ns == PACKET.received_ns - 5
    assert records.read_received(tmp_path / "r", 3)[0] == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_parts_are_the_whole(tmp_path: Path, size: int) -> None:
    """Wherever a part begins, trial and clock are those of the section before it."""
    one = records.pack_received(PACKET)
    first, second = records.section(1, -9, 1), records.section(2, -5, 8)
    received_file(tmp_path / "r", first, one + one, second, one, first, one + one)
    whole, _ = records.received_array(tmp_path / "r", 1)
    with receivedfile.ReceivedFile(tmp_path / "r") as file:
        found = np.concatenate(list(file.parts(1, size=size)))
    assert found.tolist() == whole.tolist()
    assert len(whole) == 4
    for start in range(8):
        found, _ = records.received_array(tmp_path / "r", 1, start=start)
        assert found.tolist() == whole[-len(found) :].tolist()


def test_a_torn_record_does_not_count(tmp_path: Path) -> None:
    """A receiver writes the seconds last; it was killed before."""
    whole = records.pack_received(PACKET)
    received_file(tmp_path / "r", records.section(1, 0, 0), bytes(4) + whole[4:], whole)
    assert len(records.read_received(tmp_path / "r", 1)[0]) == 1


def test_drops_are_read_from_the_header(tmp_path: Path) -> None:
    writer = recordfile.RecordWriter(tmp_path / "r", recordfile.KIND_RECEIVED, SIZE, 9, "p")
    writer.append(records.section(1, 0, 0), 1)
    writer.drops = 17
    writer.flush()
    writer.close()
    assert records.read_received(tmp_path / "r", 1)[1].drops == 17


def test_a_writer_that_lets_go_of_pages_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordfile, "LET_GO_BYTES", 4096)
    one = records.pack_received(PACKET)
    writer = recordfile.RecordWriter(tmp_path / "r", recordfile.KIND_RECEIVED, SIZE, 10**4, "p")
    writer.append(records.section(1, 0, 0), 1)
    for _ in range(10):
        writer.append(one * 500, 500)
    assert len(records.received_array(tmp_path / "r", 1)[0]) == 5000
    writer.close()


def test_the_clock_is_measured() -> None:
    _, error = udp_receive.clock_offset()
    assert 0 < error < 1_000_000_000


def test_tcp_records_come_back(tmp_path: Path) -> None:
    writer = recordfile.RecordWriter(tmp_path / "t", recordfile.KIND_TCP, 96, 5, "tcp_client")
    writer.append(records.TCP.pack(2, 3, 0, 1, 2, 3, 4, 5, 6, b"demo/web-1"), 1)
    writer.close()
    expected = records.TcpRecord("connect", "reset", 1, 2, 3, 4, 5, 6, "demo/web-1")
    assert records.read_tcp(tmp_path / "t") == [expected]


def test_arrays_hold_what_lists_hold(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 1)
    sent = records.sent_array(tmp_path / "s", start=1)
    assert sent.dtype.names == ("flow", "seq", "ns", "status", "errno")
    assert sent["errno"].tolist() == [one.errno for one in SENT[1:]]
    received_file(tmp_path / "r", records.section(1, 0, 0), records.pack_received(PACKET))
    received, state = records.received_array(tmp_path / "r", 1)
    assert received.dtype.names == ("flow", "seq", "sent_ns", "received_ns")
    assert received.tolist() == [PACKET[:4]]
    assert len(records.received_array(tmp_path / "r", 3)[0]) == 0
    assert state.pod == "demo/web-1"
