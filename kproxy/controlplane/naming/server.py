"""Takes questions over UDP and TCP, in both families, and sends what they come to.

One event loop in one thread. It waits for the kernel, and does nothing in between.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Self, cast

from kproxy import errors
from kproxy.logs import Log

from .answers import HEADER, Answers, Outcome
from .metrics import Metrics
from .upstream import Upstream

IDLE_S = 10.0
"""A connection without a question for so long is closed."""
MOST_CONNECTIONS = 500
_RECEIVE_ROOM = 1 << 20
Listen = tuple[str, int]


class Server:
    """A name server on some addresses. An async context manager: entering starts it.

    ``addresses``: host and port, each for UDP and TCP. Raises UsageError if it cannot listen.
    """

    def __init__(
        self,
        addresses: Sequence[Listen],
        answers: Answers,
        upstream: Upstream | None,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._addresses = addresses
        self._answers = answers
        self._upstream = upstream
        self._metrics = metrics
        self._log = log
        self._transports: list[asyncio.DatagramTransport] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self.ports: list[int] = []
        """The port of each address, where 0 was asked for."""

    async def __aenter__(self) -> Self:
        for address in self._addresses:
            try:
                await self._listen(address)
            except OSError as error:
                raise errors.UsageError(
                    f"cannot listen at {address[0]} port {address[1]}: {error.strerror}",
                    remedy="choose another --listen",
                ) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for transport in self._transports:
            transport.close()
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, address: Listen) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        stream = await asyncio.start_server(
            self._conversation, *address, family=family, reuse_address=True
        )
        self._servers.append(stream)
        port = int(stream.sockets[0].getsockname()[1])
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_ROOM)
            sock.setblocking(False)
            sock.bind((address[0], port))
        except OSError:
            sock.close()
            raise
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), sock=sock
        )
        self._transports.append(transport)
        self.ports.append(port)

    def take(self, transport: asyncio.DatagramTransport, data: bytes, sender: Listen) -> None:
        """Deal with a datagram."""
        begun = time.monotonic()
        outcome = self._answer(data, stream=False)
        if outcome.ask is not None:
            self._background(self._forward(transport, data, outcome, sender, begun))
        elif outcome.wire is not None:
            transport.sendto(outcome.wire, sender)
            self._count(outcome, "udp", sender, begun)

    async def _forward(
        self,
        transport: asyncio.DatagramTransport,
        data: bytes,
        outcome: Outcome,
        sender: Listen,
        begun: float,
    ) -> None:
        done = await self._elsewhere(data, outcome, stream=False)
        if done.wire is not None:
            transport.sendto(done.wire, sender)
            self._count(done, "udp", sender, begun)

    async def _elsewhere(self, data: bytes, outcome: Outcome, *, stream: bool) -> Outcome:
        """Return what asking others comes to."""
        assert self._upstream is not None  # only then there is anything to ask
        assert outcome.ask is not None
        told = await self._upstream.ask(outcome.ask, stream=stream)
        if told is None or len(told) < HEADER:
            return self._answers.failed(outcome, data, stream=stream)
        if outcome.begun is not None:
            return self._answers.complete(outcome.begun, told, stream=stream)
        return outcome._replace(wire=told, rcode=str(told[3] & 0xF), ask=None)

    def _answer(self, data: bytes, *, stream: bool) -> Outcome:
        try:
            return self._answers.answer(data, stream=stream)
        except Exception as error:  # nobody's question may end the service of all others
            self._metrics.panics.add()
            self._log.error("bug", error=repr(error), question=data[:600].hex())
            return Outcome(None)

    async def _conversation(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._connections >= MOST_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        task = asyncio.current_task()
        assert task is not None  # asyncio runs it as one
        self._tasks.add(task)
        try:
            # Ends by itself, or by who asks: gone away, silent for too long, or half a question.
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                while True:
                    await self._exchange(reader, writer)
        finally:
            self._connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(IDLE_S):
            size = int.from_bytes(await reader.readexactly(2))
            data = await reader.readexactly(size)
        begun = time.monotonic()
        outcome = self._answer(data, stream=True)
        if outcome.ask is not None:
            outcome = await self._elsewhere(data, outcome, stream=True)
        if outcome.wire is None:
            raise ConnectionAbortedError
        writer.write(len(outcome.wire).to_bytes(2) + outcome.wire)
        async with asyncio.timeout(IDLE_S):
            await writer.drain()
        self._count(outcome, "tcp", writer.get_extra_info("peername"), begun)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self, outcome: Outcome, proto: str, peer: Listen, begun: float) -> None:
        self._metrics.told(
            zone=f"{outcome.zone}." if outcome.zone else ".",
            proto=proto,
            family="2" if ":" in peer[0] else "1",
            kind=outcome.type,
            rcode=outcome.rcode,
            seconds=time.monotonic() - begun,
        )


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Listen) -> None:
        self._server.take(self._transport, data, addr)
