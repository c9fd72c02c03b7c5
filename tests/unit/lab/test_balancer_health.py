"""Who is believed to be well, told by checks alone; and checks over loopback."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kproxy.lab.balancing.health import API_TERMS, Health, Probe, Terms, Verdict
from kproxy.lab.balancing.probing import Prober

WELL, UNWELL, REFUSED, SILENT = Verdict
NODE = Terms(period=8.0, timeout=1.0, rise=2, fall=3)


def believed(health: Health, *verdicts: Verdict) -> list[bool]:
    found = []
    for verdict in verdicts:
        health.told(verdict)
        found.append(health.well)
    return found


def test_the_first_answer_decides() -> None:
    assert believed(Health(NODE), WELL) == [True]
    assert believed(Health(NODE), UNWELL, WELL, WELL) == [False, False, True]


def test_one_bad_answer_is_no_illness() -> None:
    health = Health.remembered(NODE)
    assert believed(health, UNWELL, SILENT, WELL, REFUSED, SILENT, UNWELL) == [True] * 5 + [False]
    assert believed(health, WELL, UNWELL, WELL, WELL) == [False, False, False, True]


def test_a_refused_connection_may_say_enough() -> None:
    assert believed(Health.remembered(API_TERMS), REFUSED, WELL) == [False, True]
    assert believed(Health.remembered(API_TERMS), SILENT, WELL, SILENT, SILENT) == [
        True,
        True,
        True,
        False,
    ]


def test_the_dead_are_those_who_do_not_answer_at_all() -> None:
    health = Health.remembered(API_TERMS)
    told = []
    for verdict in (UNWELL, UNWELL, SILENT, UNWELL, WELL, SILENT, SILENT, WELL):
        changed = health.told(verdict)
        told.append((health.well, health.dead, changed))
    assert told == [
        (True, False, False),
        (False, False, True),
        (False, True, True),
        (False, True, False),
        (True, False, True),
        (True, False, False),
        (False, True, True),
        (True, False, True),
    ]


QUICK = Terms(period=0.01, timeout=30.0, rise=1, fall=1)


def played(scene: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(limited())


@pytest.mark.parametrize(
    ("answer", "well", "dead"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, False),
        (b"HTTP/1.1 503 No\r\n\r\n", False, False),
        (b"nonsense" * 100 + b"\n", False, False),
        (b"", False, False),
    ],
)
def test_answers(answer: bytes, well: bool, dead: bool) -> None:
    async def scene() -> None:
        asked = asyncio.Event()
        requests = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            writer.close()
            if len(requests) == 2:  # the first one has been dealt with by then
                asked.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            probe = Probe("http", "127.0.0.1", server.sockets[0].getsockname()[1], "/readyz")
            prober = Prober(lambda: None)
            prober.follow({probe: QUICK})
            await asked.wait()
            assert (prober.is_well(probe), prober.is_dead(probe)) == (well, dead)
            assert prober.well() == [probe] * well
            await prober.close()
        assert requests[0].startswith(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:")

    played(scene)


def test_nobody_at_home() -> None:
    async def scene() -> None:
        async with await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        changed = asyncio.Event()
        probe = Probe("http", "127.0.0.1", port, "/healthz")
        prober = Prober(changed.set, remembered=[probe])
        prober.follow({probe: QUICK})
        assert prober.is_well(probe)
        await changed.wait()
        assert not prober.is_well(probe)
        assert prober.is_dead(probe)
        prober.follow({})
        assert not prober.is_dead(probe)
        await prober.close()

    played(scene)


def test_who_says_nothing_in_time_is_silent() -> None:
    async def scene() -> None:
        async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
            probe = Probe("http", "127.0.0.1", server.sockets[0].getsockname()[1], "/healthz")
            changed = asyncio.Event()
            prober = Prober(changed.set, remembered=[probe])
            prober.follow({probe: Terms(period=0.01, timeout=0.01, fall=2)})
            await changed.wait()
            assert prober.is_dead(probe)
            await prober.close()

    played(scene)
