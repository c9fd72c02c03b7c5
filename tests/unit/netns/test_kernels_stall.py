"""When a virtual clock stands still, and who is to blame."""

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from netns.kernels import channel, stall, vitals
from netns.kernels.stall import Sample, Stall


def samples(limit: float, *times: tuple[float, float], declared: float = 0) -> list[bool]:
    watch = Stall(limit)
    return [watch.stalled(Sample(cpu, virtual), declared) for cpu, virtual in times]


def test_a_clock_that_stands_while_cpu_is_used_stalls() -> None:
    assert samples(3, (0, 5), (1, 5), (2.9, 5), (3, 5)) == [False, False, False, True]


def test_reading_the_clock_is_no_progress() -> None:
    assert samples(3, (0, 5), (1, 5.0005), (3, 5.0015)) == [False, False, True]


def test_waiting_for_the_machine_is_no_stall() -> None:
    """However long it takes: what the guest does not use does not count."""
    assert samples(3, *[(0.1, 5)] * 50) == [False] * 50


def test_progress_starts_it_anew() -> None:
    times = [(0, 0), (2.9, 0), (3, 0.1), (5.9, 0.1), (6, 0.1)]
    assert samples(3, *times) == [False, False, False, False, True]


def test_computing_that_was_declared_may_last() -> None:
    assert samples(3, (0, 0), (9, 0), (10, 0), declared=10) == [False, False, True]


def test_what_was_computed_as_declared_is_not_held_against_what_follows() -> None:
    watch = Stall(3)
    declared = [0, 60, 60, 0, 0]
    times = [Sample(cpu, 0) for cpu in (0, 1, 50, 51, 53.9)]
    assert not any(map(watch.stalled, times, declared))
    assert watch.stalled(Sample(54, 0))


class Guest:
    def __init__(
        self, *taken: Sample | None, name: str = "spinner", clock: Sequence[float] = (7,)
    ) -> None:
        self.clock = list(clock)
        self.taken = list(taken)
        self.name = name

    def sample(self) -> Sample | None:
        return self.taken.pop(0)

    def readings(self, number: int) -> list[float]:
        return self.clock * (number // len(self.clock))

    def running(self) -> str:
        return self.name


def test_the_culprit_is_named(tmp_path: Path) -> None:
    watch = stall.StallWatch(Guest(Sample(0, 7), Sample(3, 7)), 3, tmp_path, now=100)
    first = watch.deadline
    assert watch.check(first - 0.01) == ""
    assert watch.check(first) == ""
    said = watch.check(watch.deadline)
    assert "spinner" in said
    assert "7.000000 s" in said


def test_a_guest_that_cannot_be_looked_at_is_left_alone(tmp_path: Path) -> None:
    watch = stall.StallWatch(Guest(None, None), 3, tmp_path, now=0)
    assert [watch.check(watch.deadline) for _ in range(2)] == ["", ""]


SLOW = [Sample(cpu, 7 + 0.02 * cpu) for cpu in (0, 1, 2, 3)]  # 20 ms per second of CPU time


def test_who_polls_the_clock_is_ended_and_named(tmp_path: Path) -> None:
    polled = Guest(*SLOW, clock=[7 + number / 1e5 for number in range(10)])
    watch = stall.StallWatch(polled, 3, tmp_path, now=0)
    *before, said = [watch.check(watch.deadline) for _ in SLOW]
    assert before == ["", "", ""]
    assert "only crept on to 7.060000 s" in said
    assert "spinner" in said


def test_who_sleeps_for_moments_between_long_work_is_not_ended(tmp_path: Path) -> None:
    """The clock is as slow as with one that polls, but it leaps."""
    working = Guest(*SLOW, clock=[7.0] * 45 + [7.001] * 55)
    watch = stall.StallWatch(working, 3, tmp_path, now=0)
    assert [watch.check(watch.deadline) for _ in SLOW] == [""] * 4


def test_many_that_start_one_after_another_are_not_ended(tmp_path: Path) -> None:
    """Each moves the clock a little all the time, as who polls it does."""
    starting = [Sample(cpu, 0.003 * cpu, process=cpu // 2) for cpu in range(9)]
    watch = stall.StallWatch(Guest(*starting, clock=range(10)), 3, tmp_path, now=0)
    assert [watch.check(watch.deadline) for _ in starting] == [""] * 9


def test_a_pace_of_fifty_milliseconds_is_no_creeping(tmp_path: Path) -> None:
    samples = [Sample(cpu, 0.06 * cpu) for cpu in range(9)]
    watch = stall.StallWatch(Guest(*samples, clock=range(10)), 3, tmp_path, now=0)
    assert [watch.check(watch.deadline) for _ in samples] == [""] * 9


def test_clocks_that_creep_move_in_most_moments_that_the_machine_gives_them() -> None:
    assert stall.creeping([number // 3 for number in range(99)])
    assert not stall.creeping([number // 10 for number in range(100)])
    assert not stall.creeping([])


def stack(arguments: list[str], address: int, more: bytes = b"") -> bytes:
    """Lay out the end of a stack as the kernel does when it starts a program."""
    environment = ["PATH=/bin", "SECRET=1"]
    texts = [*arguments, *environment, "/bin/program"]
    block = b"".join(text.encode() + b"\0" for text in texts) + b"\0" * 8
    count = len(arguments)
    size = 8 * (1 + count + 1 + len(environment) + 1) + len(more)
    places, place = [], address + size
    for text in texts[:-1]:
        places.append(place)
        place += len(text.encode()) + 1
    table = struct.pack(f"<{count + 2}Q", count, *places[:count], 0)
    table += struct.pack(f"<{len(environment) + 1}Q", *places[count:], 0)
    return table + more + block


@pytest.mark.parametrize("arguments", [["sh", "-c", "while :; do :; done", "", "a=b"], ["x"]])
def test_the_command_line_is_found_on_the_stack(arguments: list[str]) -> None:
    pointing = struct.pack("<4Q", 1, 0x7FC000, 0, 0)  # a number and a pointer, by coincidence
    assert vitals.arguments_on_stack(stack(arguments, 0x7F0000, pointing), 0x7F0000) == arguments


@pytest.mark.parametrize("memory", [b"", b"\0" * 4096, b"\xff" * 4096, b"PATH=/bin\0" + b"\0" * 8])
def test_other_memory_is_no_command_line(memory: bytes) -> None:
    assert vitals.arguments_on_stack(memory, 0x7F0000) == []


def test_a_command_line_becomes_one_short_line() -> None:
    assert vitals.printable("a\n  b\x1b[1mc") == "a b [1mc"
    assert len(vitals.printable("x" * 1000)) == vitals.LONGEST


def test_addresses_are_read_from_the_symbol_table() -> None:
    """A shared library's are relative, which is as good for the test."""
    names = frozenset({"PyObject_Repr", "no_such_name"})
    executable = Path(sys.executable).resolve()
    found = vitals.symbols(executable, names)
    assert set(found) <= {"PyObject_Repr"}
    assert vitals.symbols(Path(__file__), names) == {}


def test_memory_of_a_process_is_read() -> None:
    secret = ctypes.create_string_buffer(b"here it is")
    assert vitals.read_memory(os.getpid(), ctypes.addressof(secret), 10) == b"here it is"


def test_children_count_and_strangers_do_not() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    below = vitals.descendants(os.getpid())
    os.close(writer)
    os.waitpid(child, 0)
    assert below[child].parent == os.getpid()
    assert os.getpid() not in below
    assert 1 not in below


def test_what_a_guest_appends_is_read_and_its_room_given_back(tmp_path: Path) -> None:
    path = tmp_path / "output"
    intake = channel.File(path)
    try:
        assert intake.read() is None
        written = os.urandom(1024) * 1024 * 6
        with path.open("ab") as guest:
            guest.write(written)
        got = b""
        while data := intake.read():
            got += data
        assert got == written
        assert path.stat().st_size == len(written)
        assert not intake.overflowing()
    finally:
        intake.close()


def test_output_that_nobody_reads_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "output"
    intake = channel.File(path)
    os.truncate(path, channel.MOST_BEHIND + 1)
    assert intake.overflowing()
    intake.close()
