"""Stamps of network cards: what a control message says, whose clock it is, who may be asked."""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import card_clock
import pytest

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import hwstamp, phc, receivedfile, recordfile, records, udp_receive, wire
from kproxy.traffic.hwstamp import Ability, Stamps
from kproxy.traffic.phc import Reading, Sample

SECOND = 1_000_000_000
TRIAL = 7
TIMESTAMPNS, TIMESTAMPING, OVERFLOWN = 35, 37, 40
SLOT = 152
ALL_FILTERS = 1 << 1
RECEIVES, RAW = 1 << 2, 1 << 6


def slot(seq: int, kernel_ns: int, card_ns: int, drops: int = 0) -> bytes:
    """Return what the kernel makes of a slot: head, two messages with stamps, SO_RXQ_OVFL."""
    one, _, _ = times = [struct.pack("=qq", *divmod(ns, SECOND)) for ns in (kernel_ns, 0, card_ns)]
    control = struct.pack("=qii", 32, socket.SOL_SOCKET, TIMESTAMPNS) + one
    control += struct.pack("=qii", 64, socket.SOL_SOCKET, TIMESTAMPING) + b"".join(times)
    if drops:
        control += struct.pack("=qiiIxxxx", 20, socket.SOL_SOCKET, OVERFLOWN, drops)
    return (wire.header(TRIAL, 3, seq=seq, sent_ns=seq + 1) + control).ljust(SLOT, b"\0")


def batch(*slots: bytes) -> udp_receive.Batch:
    found = udp_receive.Batch(layout=udp_receive.BY_CARD)
    for i, one in enumerate(slots):
        found.slots[i * SLOT : (i + 1) * SLOT] = one
    return found


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[recordfile.RecordWriter]:
    made = recordfile.RecordWriter(
        tmp_path / "received", recordfile.KIND_RECEIVED, records.RECEIVED_SIZE, 100, "far"
    )
    yield made
    made.close()


def test_of_three_times_the_cards_is_taken_as_it_is() -> None:
    kernel, card = 1_700_000_000 * SECOND + 1, 1_700_000_037 * SECOND + 999_999_999
    found = batch(slot(4, kernel, card), slot(5, kernel + 6, card + 8, drops=11))
    records_of = bytearray(2 * records.RECEIVED_SIZE)
    found.copy(0, 2, memoryview(records_of).cast("I"))
    first, second = (struct.unpack_from("=II", records_of, at) for at in (0, 24))
    assert first == (1_700_000_037, 999_999_999)
    assert second == (1_700_000_038, 7)
    assert struct.unpack_from("!IIQ", records_of, 24 + 8) == (3, 5, 6)
    assert (found.kernel_stamp(0), found.kernel_stamp(1)) == (kernel, kernel + 6)
    assert (found.unstamped(0, 2), found.drops(1), found.drops(2)) == ([], 0, 11)


def test_those_that_the_card_has_left_out_are_told() -> None:
    now = 1_700_000_000 * SECOND
    found = batch(slot(0, now, now), slot(1, now, 0), slot(2, now, now), slot(3, now, 0))
    assert (found.unstamped(0, 4), found.unstamped(2, 2)) == ([1, 3], [3])


def test_both_kinds_of_stamps_are_on_the_one_clock(
    writer: recordfile.RecordWriter, tmp_path: Path
) -> None:
    card = card_clock.FixedCard()
    recorder = udp_receive.Recorder(writer, card=card)
    arrived = time.time_ns() - 50_000_000
    filled = batch(slot(0, arrived, arrived + card_clock.AHEAD), slot(1, arrived + 10, 0))
    recorder._batch = filled
    recorder._record(0, 2)
    offset, error = udp_receive.clock_offset()
    with receivedfile.ReceivedFile(tmp_path / "received") as file:
        found = file.whole(TRIAL)
        assert file.state.clock_error_ns >= 9
        allowed = file.state.clock_error_ns + error
    assert found["seq"].tolist() == [0, 1]
    for got, expected in zip(found["received_ns"].tolist(), (0, 10), strict=True):
        # Offsets are told by the card's clock and by the kernel's, each with its error.
        assert abs(got - (arrived + offset + expected)) <= 3 * allowed
    assert recorder.unstamped == 1
    assert card.waited[0] >= 50_000_000 - 3 * allowed


def test_loopback_has_no_card_so_the_kernels_stamp_is_taken(
    writer: recordfile.RecordWriter, tmp_path: Path
) -> None:
    recorder = udp_receive.Recorder(writer, card=card_clock.FixedCard())
    before = time.monotonic_ns()
    with (
        udp_receive.open_socket(0, packets_per_second=10, by_card=True) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for seq in range(5):
            place = ("127.0.0.1", sock.getsockname()[1])
            sender.sendto(wire.header(TRIAL, 0, seq=seq, sent_ns=1), place)
        recorder.readable(sock)
    after = time.monotonic_ns()
    with receivedfile.ReceivedFile(tmp_path / "received") as file:
        found = file.whole(TRIAL)
        allowed = 3 * file.state.clock_error_ns
    assert found["seq"].tolist() == [0, 1, 2, 3, 4]
    assert recorder.unstamped == 5
    assert before - allowed <= found["received_ns"].min()
    assert found["received_ns"].max() <= after + allowed


def answer(size: int, *ns: int) -> bytes:
    times = [struct.pack("=qI4x", *divmod(one, SECOND)) for one in ns]
    return b"".join([bytes(16), *times]).ljust(size, b"\0")


def test_answers_of_the_clock_are_read() -> None:
    base = 1_700_000_000 * SECOND
    flat = [base + i for i in (0, 100, 10, 20, 120, 26)]
    expected = [Sample(*flat[:3]), Sample(*flat[3:])]
    assert phc.of_extended(answer(1216, *flat), 2) == expected
    # Without readings of its own, a sample begins with the system's time that ended the last one.
    assert phc.of_plain(answer(832, *flat[:5]), 2) == [Sample(*flat[:3]), Sample(*flat[2:5])]


def test_the_quickest_reading_counts_and_its_error_is_half_of_what_it_took() -> None:
    slow, quick = Sample(0, 1000, 10), Sample(20, 1020, 25)
    assert phc.best([slow, quick]) == (22 - 1020, 3)
    assert phc.best([quick, slow]) == (22 - 1020, 3)


def test_a_clock_that_drifts_is_known_less_exactly_the_longer_ago_it_was_read() -> None:
    before = Reading(at_ns=0, offset_ns=500, error_ns=10)
    now = Reading(at_ns=SECOND, offset_ns=50_480, error_ns=10)  # 50 ppm, within both errors
    assert phc.drift_error(before, now, 20_000_000) == 1000
    assert phc.drift_error(now, before._replace(at_ns=2 * SECOND), 2 * SECOND) == 100_000
    assert phc.drift_error(before, before, 0) == 0


@pytest.mark.parametrize("there", [False, True])
def test_what_is_no_clock_is_refused(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "ptp0"
    if there:
        place.touch()
    with pytest.raises(UsageError, match=r"ptp0, the card's clock") as told:
        phc.CardClock(0, place)
    assert "--timestamps software" in told.value.remedy


@pytest.mark.parametrize(
    ("ability", "words"),
    [
        (Ability(1 << 3, -1, 0), "cannot stamp arrivals"),
        (Ability(RECEIVES, 0, ALL_FILTERS), "cannot stamp arrivals"),
        (Ability(RECEIVES | RAW, 0, 1 << 12), "only packets of PTP"),
        (Ability(RECEIVES | RAW, -1, ALL_FILTERS), "no clock"),
        (Ability(RECEIVES | RAW, 0, ALL_FILTERS), ""),
    ],
)
def test_what_a_card_lacks_is_said(ability: Ability, words: str) -> None:
    assert words in ability.obstacle()
    assert bool(words) == bool(ability.obstacle())


def test_without_an_interface_nobody_knows_which_card() -> None:
    told: list[str] = []
    with (
        pytest.raises(UsageError, match="--timestamps hardware: which card") as refused,
        hwstamp.arrivals(Stamps.HARDWARE, "", told.append),
    ):
        raise AssertionError
    assert "--interface" in refused.value.remedy
    with hwstamp.arrivals(Stamps.AUTO, "", told.append) as clock:
        assert clock is None
    assert told == ["arrivals are stamped by the kernel: which card is to stamp is not known"]
    with hwstamp.arrivals(Stamps.SOFTWARE, "", told.append) as clock:
        assert clock is None
    assert len(told) == 1


def test_what_cannot_be_given_back_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Loopback takes no such setting; so its keeper, a process of its own, cannot give it back."""
    with (
        pytest.raises(MeasurementError, match="lo could not be told") as told,
        hwstamp._kept("lo", hwstamp.Config(0, 0, 12)),
    ):
        assert capfd.readouterr().err == ""
    assert "hwstamp_ctl -i lo -t 0 -r 12" in told.value.remedy
    assert "lo: its stamps are not as before" in capfd.readouterr().err
