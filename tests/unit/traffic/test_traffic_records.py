"""Record files: what the readers make of whole, growing, cut and foreign ones."""

import struct
from pathlib import Path

import pytest

from kproxy.errors import MeasurementError
from kproxy.traffic import recordfile, records, udp_receive

SENT = records.Sent(records.STATUS_FAILED, 105, 3, 4, 5)
PACKET = records.Received(1, 2, 1_000, 5_000_000_123, "pod")


def packed(sent: records.Sent) -> bytes:
    return records.SENT.pack(sent.status | sent.errno << 8, sent.flow, sent.seq, sent.ns)


def sent_file(path: Path, number: int, capacity: int = 10) -> None:
    writer = recordfile.RecordWriter(path, recordfile.KIND_SENT, 24, capacity, "udp_send")
    for _ in range(number):
        writer.append(packed(SENT), 1)
    writer.close()


def received_file(path: Path, *parts: bytes) -> None:
    writer = recordfile.RecordWriter(path, recordfile.KIND_RECEIVED, 96, 100, "demo/web-1")
    for part in parts:
        writer.append(part, len(part) // 96)
    writer.close()


def clock(offset: int, error: int = 0) -> bytes:
    return records.CLOCK.pack(records.CLOCK_MAGIC, error, offset).ljust(96, b"\0")


def test_sent_records_come_back(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 3)
    assert records.read_sent(tmp_path / "s") == [SENT] * 3


def test_a_batch_whose_count_was_not_written_counts(tmp_path: Path) -> None:
    """The writer is killed between copying records and counting them."""
    sent_file(tmp_path / "s", 2)
    with (tmp_path / "s").open("r+b") as file:
        file.seek(24)
        file.write(struct.pack("<Q", 1))
    assert records.read_sent(tmp_path / "s") == [SENT] * 2


def test_records_without_room_are_an_error(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 12)
    with pytest.raises(MeasurementError, match=r"2 records found no room in 10.*raise"):
        records.read_sent(tmp_path / "s")


@pytest.mark.parametrize("size", [0, 100, 4096, 4096 + 30])
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


def test_arrival_times_are_converted_by_the_last_clock_record(tmp_path: Path) -> None:
    one = records.pack_received(PACKET, 7)
    received_file(tmp_path / "r", clock(-1000, 5), one, clock(-3000, 2), one + one)
    packets, state = records.read_received(tmp_path / "r", 7)
    times = [PACKET.received_ns + offset for offset in (-1000, -3000, -3000)]
    assert [p.received_ns for p in packets] == times
    assert {p.pod for p in packets} == {"demo/web-1"}
    assert state == records.ReceiverState("demo/web-1", 5, 0, 0, 5)


def test_only_the_asked_trial_is_read_with_the_clock_before_it(tmp_path: Path) -> None:
    first, second = (records.pack_received(PACKET, trial) for trial in (1, 2))
    received_file(tmp_path / "r", clock(-9), first + first, clock(-5), first, second + first)
    assert len(records.read_received(tmp_path / "r", 1)[0]) == 4
    (packet,) = records.read_received(tmp_path / "r", 2)[0]
    assert packet.received_ns == PACKET.received_ns - 5
    assert records.read_received(tmp_path / "r", 3)[0] == []
    assert len(records.read_received(tmp_path / "r", 1, start=4)[0]) == 2


def test_a_torn_record_does_not_count(tmp_path: Path) -> None:
    whole = records.pack_received(PACKET, 1)
    received_file(tmp_path / "r", clock(0), whole, whole[:40].ljust(96, b"\0"))
    assert len(records.read_received(tmp_path / "r", 1)[0]) == 1


def test_drops_are_read_from_packets_and_header(tmp_path: Path) -> None:
    packet = bytearray(records.pack_received(PACKET, 1))
    struct.pack_into("@qiiI", packet, 64, 20, records.SOL_SOCKET, records.SO_RXQ_OVFL, 17)
    received_file(tmp_path / "r", clock(0), bytes(packet))
    assert records.read_received(tmp_path / "r", 1)[1].drops == 17


def test_the_clock_is_measured() -> None:
    magic, error, _ = records.CLOCK.unpack_from(udp_receive.clock_record())
    assert magic == records.CLOCK_MAGIC
    assert 0 < error < 1_000_000_000


def test_merging_orders_by_arrival() -> None:
    early, late = (PACKET._replace(received_ns=ns) for ns in (1, 2))
    assert records.merge([[late], [early]]) == [early, late]


def test_tcp_records_come_back(tmp_path: Path) -> None:
    writer = recordfile.RecordWriter(tmp_path / "t", recordfile.KIND_TCP, 96, 5, "tcp_client")
    writer.append(records.TCP.pack(2, 3, 0, 1, 2, 3, 4, 5, 6, b"demo/web-1"), 1)
    writer.close()
    expected = records.TcpRecord("connect", "reset", 1, 2, 3, 4, 5, 6, "demo/web-1")
    assert records.read_tcp(tmp_path / "t") == [expected]


def test_arrays_hold_what_lists_hold(tmp_path: Path) -> None:
    sent_file(tmp_path / "s", 3)
    sent = records.sent_array(tmp_path / "s", start=1)
    assert [records.Sent(*one) for one in sent[["status", "errno", "flow", "seq", "ns"]]] == (
        [SENT] * 2
    )
    first, second = (records.pack_received(PACKET, trial) for trial in (1, 2))
    received_file(tmp_path / "r", clock(-9, 3), first + second, clock(-5, 2), first)
    received, state = records.received_array(tmp_path / "r", 1)
    packets, expected = records.read_received(tmp_path / "r", 1)
    assert state == expected
    assert [records.Received(*one, state.pod) for one in received.tolist()] == packets
    assert len(records.received_array(tmp_path / "r", 3)[0]) == 0
