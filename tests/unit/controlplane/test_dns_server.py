"""The name server on loopback: datagrams, streams, other resolvers, broken clients."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from exposition_parser import parse

from kproxy import logs
from kproxy.controlplane.naming import server as module
from kproxy.controlplane.naming import upstream
from kproxy.controlplane.naming.answers import Answers, Rules
from kproxy.controlplane.naming.metrics import Metrics
from kproxy.controlplane.naming.records import Record, Type
from kproxy.controlplane.naming.server import Server
from kproxy.controlplane.naming.upstream import Upstream
from kproxy.controlplane.naming.zone import Zone
from kproxy.errors import UsageError

WEB = "web.shop.svc.cluster.local"
MANY = "many.shop.svc.cluster.local"
PATIENCE_S = 60.0
LOOPBACK = "127.0.0.1"


def zone() -> Zone:
    made = Zone()
    found = [Record(WEB, Type.A, "10.96.0.7"), Record(WEB, Type.AAAA, "fd00:96::7")]
    found += [Record(MANY, Type.A, f"10.244.1.{number}") for number in range(100)]
    found.append(Record(f"out.{WEB}", Type.CNAME, "bank.example.org."))
    made.replace("all", found)
    return made


@asynccontextmanager
async def running(
    upstream: Upstream | None = None, host: str = LOOPBACK, metrics: Metrics | None = None
) -> Any:
    answers = Answers(zone(), Rules(forwards=upstream is not None), lambda: True)
    log = logs.Log("dns")
    async with Server([(host, 0)], answers, upstream, metrics or Metrics(), log) as server:
        yield server


def played(scene: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scene()

    asyncio.run(limited())


def addresses(response: dns.message.Message) -> list[str]:
    return sorted(str(rdata) for rrset in response.answer for rdata in rrset)


@pytest.mark.parametrize("host", [LOOPBACK, "::1"])
def test_datagrams_and_streams(host: str) -> None:
    async def scene() -> None:
        async with running(host=host) as server:
            (port,) = server.ports
            for transport in (dns.asyncquery.udp, dns.asyncquery.tcp):
                query = dns.message.make_query(WEB, "AAAA")
                response = await transport(query, host, port=port, timeout=PATIENCE_S)
                assert addresses(response) == ["fd00:96::7"]

    played(scene)


def test_who_gets_a_cut_answer_asks_again_over_tcp() -> None:
    async def scene() -> None:
        async with running() as server:
            (port,) = server.ports
            query = dns.message.make_query(MANY, "A")
            response, over_tcp = await dns.asyncquery.udp_with_fallback(
                query, LOOPBACK, port=port, timeout=PATIENCE_S
            )
            assert over_tcp
            assert len(addresses(response)) == 100

    played(scene)


def test_a_stream_carries_many_questions_also_in_pieces() -> None:
    async def scene() -> None:
        async with running() as server:
            reader, writer = await asyncio.open_connection(LOOPBACK, server.ports[0])
            wire = dns.message.make_query(WEB, "A").to_wire()
            framed = len(wire).to_bytes(2) + wire
            for piece in (framed + framed[:1], framed[1:9], framed[9:]):
                writer.write(piece)
                await writer.drain()
            for _ in range(2):
                size = int.from_bytes(await reader.readexactly(2))
                response = dns.message.from_wire(await reader.readexactly(size))
                assert addresses(response) == ["10.96.0.7"]
            writer.close()

    played(scene)


def test_a_stream_that_talks_nonsense_is_closed_and_others_go_on() -> None:
    async def scene() -> None:
        async with running() as server:
            for sent in (b"\0\0", b"\0\x05short", b"\xff\xff" + bytes(10)):
                reader, writer = await asyncio.open_connection(LOOPBACK, server.ports[0])
                writer.write(sent)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            query = dns.message.make_query(WEB, "A")
            response = await dns.asyncquery.tcp(query, LOOPBACK, port=server.ports[0])
            assert response.rcode() == dns.rcode.NOERROR

    played(scene)


def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 1)

    async def scene() -> None:
        async with running() as server:
            query = dns.message.make_query(WEB, "A")
            wire = query.to_wire()
            reader, writer = await asyncio.open_connection(LOOPBACK, server.ports[0])
            writer.write(len(wire).to_bytes(2) + wire)
            await reader.readexactly(2)  # it counts
            late, other = await asyncio.open_connection(LOOPBACK, server.ports[0])
            assert await late.read() == b""
            other.close()
            writer.close()

    played(scene)


@asynccontextmanager
async def resolver(address: str = "192.0.2.1") -> Any:
    """Run another resolver, which knows one answer to everything."""

    class Known:
        def answer(self, data: bytes, *, stream: bool) -> Any:
            query = dns.message.from_wire(data)
            response = dns.message.make_response(query)
            owner = query.question[0].name.to_text()
            response.answer.append(dns.rrset.from_text(owner, 60, "IN", "A", address))
            return module.Outcome(response.to_wire(), "NOERROR", "A", ".")

    known: Any = Known()
    async with Server([(LOOPBACK, 0)], known, None, Metrics(), logs.Log("other")) as server:
        yield LOOPBACK, server.ports[0]


@pytest.mark.parametrize("transport", [dns.asyncquery.udp, dns.asyncquery.tcp])
def test_other_names_are_asked_elsewhere(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TIMEOUT_S", PATIENCE_S)

    async def scene() -> None:
        async with resolver() as place, running(Upstream([place])) as server:
            for name in ("example.org", f"out.{WEB}"):
                query = dns.message.make_query(name, "A")
                response = await transport(query, LOOPBACK, port=server.ports[0])
                assert "192.0.2.1" in addresses(response)

    played(scene)


def test_a_resolver_that_is_not_there_is_passed_over() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind((LOOPBACK, 0))
        nobody = unused.getsockname()

    async def scene() -> None:
        async with resolver() as place:
            async with running(Upstream([nobody, place])) as server:
                query = dns.message.make_query("example.org", "A")
                response = await dns.asyncquery.udp(query, LOOPBACK, port=server.ports[0])
                assert addresses(response) == ["192.0.2.1"]
            async with running(Upstream([nobody])) as server:
                response = await dns.asyncquery.udp(query, LOOPBACK, port=server.ports[0])
                assert response.rcode() == dns.rcode.SERVFAIL

    played(scene)


def test_questions_are_counted() -> None:
    metrics = Metrics()

    async def scene() -> None:
        async with running(metrics=metrics) as server:
            for name, kind in ((WEB, "A"), (f"x.{WEB}", "TYPE999")):
                query = dns.message.make_query(name, kind)
                await dns.asyncquery.udp(query, LOOPBACK, port=server.ports[0])

    played(scene)
    text = metrics.registry.text()
    parse(text)
    assert (
        'coredns_dns_requests_total{server="dns://:53",zone="cluster.local.",proto="udp",'
        'family="1",type="A"} 1' in text
    )
    assert 'type="other"} 1' in text
    assert (
        'coredns_dns_responses_total{server="dns://:53",zone="cluster.local.",rcode="NXDOMAIN"} 1'
        in text
    )


def test_a_bug_costs_one_answer() -> None:
    metrics = Metrics()

    class Broken:
        times = 0

        def answer(self, data: bytes, *, stream: bool) -> Any:
            Broken.times += 1
            if Broken.times == 1:
                raise RuntimeError("a bug")
            return module.Outcome(data, "NOERROR")

    broken: Any = Broken()

    async def scene() -> None:
        async with Server([(LOOPBACK, 0)], broken, None, metrics, logs.Log("dns")) as server:
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect((LOOPBACK, server.ports[0]))
                await loop.sock_sendall(sock, b"first")
                await loop.sock_sendall(sock, b"second")
                assert await loop.sock_recv(sock, 100) == b"second"

    played(scene)
    assert "coredns_panics_total 1\n" in metrics.registry.text()


def test_a_place_that_is_taken_is_told() -> None:
    async def scene() -> None:
        with socket.create_server((LOOPBACK, 0)) as other:
            place = other.getsockname()
            answers = Answers(zone(), Rules(), lambda: True)
            server = Server([place], answers, None, Metrics(), logs.Log("dns"))
            with pytest.raises(UsageError, match="cannot listen"):
                async with server:
                    raise AssertionError("it listens")

    played(scene)
