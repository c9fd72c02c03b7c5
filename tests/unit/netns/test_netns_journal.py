"""The journal tells what is left, whatever happened to those who wrote it."""

import fcntl
import json
import multiprocessing
import os
import string
import threading
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns import codec, journal
from netns.errors import NetnsError
from netns.journal import Journal, Ledger
from netns.lab import AttachedLab
from netns.process import ProcessId
from netns.topology import (
    Host,
    Interface,
    Link,
    Neighbour,
    Route,
    RouteKind,
    Segment,
    Topology,
)

PATIENCE_S = 60.0

TOPOLOGY = Topology(
    hosts=(
        Host(
            name="a",
            routes=(
                Route(to=ip_network("0.0.0.0/0"), via=ip_address("192.0.2.2")),
                Route(to=ip_network("2001:db8::/32"), kind=RouteKind.BLACKHOLE),
            ),
            sysctls={"net.ipv4.ip_forward": "1"},
            neighbours=(
                Neighbour(address=ip_address("192.0.2.9"), mac="02:00:00:00:00:09", dev="eth0"),
            ),
        ),
        Host(name="b"),
    ),
    links=(
        Link(
            a=Interface(
                host="a",
                name="eth0",
                addresses=(ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")),
                mac="02:00:00:00:00:01",
                mtu=9000,
                routes=(Route(to=ip_network("198.51.100.0/24"), dev="eth0", onlink=True),),
            ),
            b=Interface(host="b", name="eth0"),
            static_neighbours=False,
        ),
    ),
    segments=(Segment(name="lan", interfaces=(Interface(host="b", name="eth1"),)),),
)


def test_a_topology_survives_json() -> None:
    assert codec.decode(json.loads(json.dumps(codec.encode(TOPOLOGY)))) == TOPOLOGY


def test_the_sum_of_a_life(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    book.begin("demo")
    book.append("add", topology=codec.encode(TOPOLOGY))
    book.process("a", ProcessId(10, 100))
    book.process("b", ProcessId(11, 110))
    book.append("remove", host="b")
    ledger = book.ledger()
    book.close()
    assert ledger == journal.peek(tmp_path)
    assert ledger.name == "demo"
    assert ledger.owner == ProcessId.of(os.getpid())
    assert ledger.namespaces == ["demo-a", "demo-lan"]
    assert ledger.processes == (("a", ProcessId(10, 100)),)
    assert not ledger.closing


def test_a_host_is_leaving_until_it_has_left(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    book.begin("demo")
    book.append("add", topology=codec.encode(TOPOLOGY))
    book.append("removing", host="b")
    assert book.ledger().leaving == {"b"}
    assert "demo-b" in book.ledger().namespaces
    book.append("remove", host="b")
    assert book.ledger().leaving == frozenset()
    assert "demo-b" not in book.ledger().namespaces
    book.close()


def test_nobody_waits_to_learn_that_a_host_is_leaving(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    book.begin("demo")
    book.append("add", topology=codec.encode(TOPOLOGY))
    lab = AttachedLab(tmp_path, book)
    found: list[bool] = []
    with book.changing():
        book.append("removing", host="b")
        asking = threading.Thread(
            target=lambda: found.extend([lab.has_now("a"), lab.has_now("b")]), daemon=True
        )
        asking.start()
        asking.join(PATIENCE_S)
        assert found == [True, False]
    assert "b" in lab
    book.append("remove", host="b")
    assert "b" not in lab
    book.close()


def test_a_failed_addition_is_taken_back(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    book.begin("demo")
    book.append("add", topology=codec.encode(TOPOLOGY))
    book.append("restore", topology=codec.encode(Topology()))
    assert book.ledger().namespaces == []
    book.close()


def test_writers_see_each_other(tmp_path: Path) -> None:
    one, other = Journal(tmp_path), Journal(tmp_path)
    one.begin("demo")
    assert other.ledger().name == "demo"
    other.append("closing")
    assert one.ledger().closing
    one.close()
    other.close()


RECORDS = [
    {"op": "lab", "name": "demo", "pid": 1, "start_time": 2, "boot": "x"},
    {"op": "add", "topology": codec.encode(TOPOLOGY)},
    {"op": "process", "host": "a", "pid": 3, "start_time": 4},
    {"op": "removing", "host": "a"},
    {"op": "remove", "host": "a"},
    {"op": "something from the future"},
    {"op": "closing"},
]


def written(records: list[dict[str, object]]) -> bytes:
    return b"".join(b"\n" + json.dumps(each).encode() + b"\n" for each in records)


@given(st.lists(st.sampled_from(RECORDS)), st.integers(min_value=0), st.data())
def test_half_a_record_spoils_nothing(
    before: list[dict[str, object]], cut: int, data: st.DataObject
) -> None:
    """A writer killed in the middle of a record might as well not have begun it."""
    torn = written([data.draw(st.sampled_from(RECORDS))])
    torn = torn[: cut % (len(torn) - 1)]  # at least its closing brace is missing
    after = data.draw(st.lists(st.sampled_from(RECORDS)))
    expected, _ = journal.parse(written(before + after), Ledger())
    found, _ = journal.parse(written(before) + torn + written(after), Ledger())
    assert expected == found


@given(st.lists(st.sampled_from(RECORDS)), st.integers(min_value=0))
def test_reading_in_two_pieces_is_reading_once(records: list[dict[str, object]], cut: int) -> None:
    data = written(records)
    split = cut % (len(data) + 1)
    first, used = journal.parse(data[:split], Ledger())
    found, rest = journal.parse(data[used:], first)
    assert found == journal.parse(data, Ledger())[0]
    assert used + rest == len(data)


def test_a_record_that_nobody_wrote_is_an_error() -> None:
    with pytest.raises(NetnsError, match="bad record"):
        journal.parse(b'{"op": "process", "pid": 1}\n', Ledger())


def _append_many(directory: str, letter: str) -> None:
    book = Journal(Path(directory))
    for n in range(200):
        book.process(letter * 200, ProcessId(n, 1))
    book.close()


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=_append_many, args=(str(tmp_path), letter))
        for letter in string.ascii_lowercase[:3]
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        writer.close()
    assert len(journal.peek(tmp_path).processes) == 600


def test_only_one_owner(tmp_path: Path) -> None:
    lock = journal.take_lock(tmp_path)
    assert lock is not None
    assert journal.take_lock(tmp_path) is None
    os.close(lock)
    again = journal.take_lock(tmp_path)
    assert again is not None
    os.close(again)


def test_who_changes_the_lab_excludes_others(tmp_path: Path) -> None:
    one, other = Journal(tmp_path), Journal(tmp_path)
    with (
        one.changing(),
        pytest.raises(NetnsError, match="locked by another"),
        other.changing(timeout=0),
    ):
        pass
    with other.changing(timeout=0):
        pass
    one.close()
    other.close()


def test_changing_gives_the_lock_up_after_an_error(tmp_path: Path) -> None:
    book = Journal(tmp_path)
    with pytest.raises(ValueError, match="x"), book.changing():
        raise ValueError("x")
    fd = os.open(book.path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    book.close()


def test_half_a_record_is_said_before_the_deed_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system is full: nothing must be done that a clean-up would not know of."""
    book = Journal(tmp_path)
    book.append("closing")
    with monkeypatch.context() as patched:
        write = os.write
        patched.setattr(journal.os, "write", lambda fd, data: write(fd, data[:8]))
        with pytest.raises(NetnsError, match=r"cannot write to .*journal: no space left"):
            book.append("add", topology={}, cards=[])
    assert book.ledger().closing
    book.begin("again")
    assert book.ledger().name == "again"
    book.close()
