"""Asks other resolvers, where a name is none of the cluster's."""

import asyncio
from collections.abc import Sequence

TIMEOUT_S = 2.0
"""So long each resolver has, as CoreDNS gives it."""
MOST_AT_ONCE = 1000
Resolver = tuple[str, int]


class Upstream:
    """A list of resolvers, of which the first is asked first."""

    def __init__(self, resolvers: Sequence[Resolver]) -> None:
        self._resolvers = tuple(resolvers)
        self._under_way = 0

    async def ask(self, question: bytes, *, stream: bool) -> bytes | None:
        """Return an answer with the question's own number; None if there is none."""
        if self._under_way >= MOST_AT_ONCE:
            return None
        self._under_way += 1
        try:
            for resolver in self._resolvers:
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        return await (_stream if stream else _datagram)(resolver, question)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
        finally:
            self._under_way -= 1
        return None


class _One(asyncio.DatagramProtocol):
    """Waits for one answer to a question."""

    def __init__(self, number: bytes) -> None:
        self._number = number
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._number and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _datagram(resolver: Resolver, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    # A socket for each question: whoever wants to forge an answer has to guess its port.
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: _One(question[:2]), remote_addr=resolver
    )
    try:
        transport.sendto(question)
        return await protocol.answer
    finally:
        transport.close()


async def _stream(resolver: Resolver, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*resolver)
    try:
        writer.write(len(question).to_bytes(2) + question)
        size = int.from_bytes(await reader.readexactly(2))
        return await reader.readexactly(size)
    finally:
        writer.close()
