"""The HTTP server: few connections, a deadline for each, and nothing read from strangers.

A client that is slow, silent or many costs a bounded share; Alertmanager sends again whatever it
got no 200 for.
"""

import asyncio
import contextlib
import re
import ssl
import threading
from collections import Counter
from pathlib import Path
from typing import Protocol, Self

from kproxy.errors import UsageError

from . import http1
from .http1 import HEAD_MOST, Answer, BadRequest, Request, problem
from .settings import Settings

SHARE = 4
"""One address may have a connection in so many of them all, so that others get in as well."""

LINGER_S = 1.0
"""So long a client that was answered may take to close."""


class Pages(Protocol):
    """Answers requests; called in threads."""

    def refuse(self, request: Request) -> Answer | None:
        """Return why a request is not answered, before its body is read; None: it is."""

    def answer(self, request: Request, body: bytes, peer: str) -> Answer:
        """Answer a request that was not refused."""

    def broken(self, code: int) -> None:
        """Count a request that was no request."""


class Server:
    """Serves until the end of its context. Raises UsageError if it cannot listen."""

    def __init__(self, settings: Settings, pages: Pages) -> None:
        self._settings = settings
        self._pages = pages
        self._tls = _Tls(settings)
        self._open: Counter[str] = Counter()
        self._turned_away = 0
        self._started = threading.Event()
        self._error: OSError | UnicodeError | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self.port = 0
        """The port it listens on."""

    def __enter__(self) -> Self:
        host, port = address(self._settings.listen)
        self._host, self.port = host, port
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            reason = getattr(self._error, "strerror", None) or str(self._error)
            words = f"cannot listen at {self._settings.listen!r}: {reason}"
            raise UsageError(words, remedy="choose another HOST:PORT")
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        timeout = float(self._settings.request_within) if self._tls.context else None
        try:
            server = await asyncio.start_server(
                self._connected,
                self._host,
                self.port,
                limit=HEAD_MOST,
                ssl=self._tls.context,
                ssl_handshake_timeout=timeout,
            )
        except (OSError, UnicodeError) as error:  # The second: what is no name of a host.
            self._error = error
            self._started.set()
            return
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stop.wait()
        tasks = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        most = self._settings.connections
        share = max(1, most // SHARE)
        crowded = self._open.total() >= most or self._open[peer] >= share
        try:
            if crowded:
                await self._crowded(reader, writer)
            else:
                await self._admitted(reader, writer, peer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ssl.SSLError):
            pass  # The client has gone, or is too slow; it will ask again.
        finally:
            self._tls.refresh()
            await _close(writer)

    async def _admitted(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        self._open[peer] += 1
        try:
            await self._converse(reader, writer, peer)
        finally:
            self._open[peer] -= 1
            self._open += Counter()  # drops those at 0

    async def _crowded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who is turned away takes nobody's place, so that one address cannot keep the others out.
        self._pages.broken(503)
        if self._turned_away >= self._settings.connections:
            writer.transport.abort()
            return
        self._turned_away += 1
        try:
            answer = problem(503, "too many connections", **{"Retry-After": "1"})
            await self._send(reader, writer, answer)
        finally:
            self._turned_away -= 1

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        within = float(self._settings.request_within)
        head_only = False
        try:
            async with asyncio.timeout(within):
                request = http1.parse_head(await reader.readuntil(b"\r\n\r\n"))
                head_only = request.method == "HEAD"
                answer = await asyncio.to_thread(self._pages.refuse, request)
                if answer is None:
                    body = await self._body(request, reader, writer)
        except BadRequest as error:
            answer = self._broken(error.code, str(error))
        except asyncio.LimitOverrunError:
            answer = self._broken(431, f"the head is longer than {HEAD_MOST} bytes")
        except TimeoutError:
            answer = self._broken(408, f"the request did not come within {within:g} s")
        if answer is None:
            answer = await asyncio.to_thread(self._pages.answer, request, body, peer)
        await self._send(reader, writer, answer, head_only=head_only)

    async def _body(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        most = self._settings.body_bytes
        if request.length > most:
            raise BadRequest(413, f"the body is longer than {most} bytes")
        if request.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await reader.readexactly(request.length)

    def _broken(self, code: int, words: str) -> Answer:
        self._pages.broken(code)
        return problem(code, words)

    async def _send(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answer,
        *,
        head_only: bool = False,
    ) -> None:
        writer.transport.set_write_buffer_limits(0)  # To drain is then to have all sent.
        async with asyncio.timeout(float(self._settings.request_within)):
            writer.write(http1.render(answer, head_only=head_only))
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        # To close while something unread is left would reset, and the client not see the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await reader.read(HEAD_MOST):
                    pass


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(LINGER_S):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


class _Tls:
    """The server's certificate, which is read again when its file has changed."""

    def __init__(self, settings: Settings) -> None:
        self._cert, self._key = settings.tls.cert_file, settings.tls.key_file
        self.context: ssl.SSLContext | None = None
        self._mark = (0, 0)
        if self._cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                self._mark = self._changed()
                self._load(self.context)
            except OSError as error:
                words = f"cannot use the certificate {self._cert}: {error.strerror or error}"
                raise UsageError(words, remedy="check tls.certFile and tls.keyFile") from None

    def refresh(self) -> None:
        """Read the certificate again if it has changed; while it is broken the old one serves."""
        if self.context is None:
            return
        with contextlib.suppress(OSError):  # among them ssl.SSLError
            mark = self._changed()
            if mark != self._mark:
                self._mark = mark
                # A pair that does not fit, as between the writing of its halves, would spoil ours.
                self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
                self._load(self.context)

    def _changed(self) -> tuple[int, int]:
        return Path(self._cert).stat().st_mtime_ns, Path(self._key).stat().st_mtime_ns

    def _load(self, context: ssl.SSLContext) -> None:
        # A key that is encrypted is refused, not asked for at a terminal.
        context.load_cert_chain(self._cert, self._key, password="")


def address(listen: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; no host: all addresses. Raises UsageError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not re.fullmatch("[0-9]+", port) or int(port) > 65535:
        raise UsageError(f"listen: {listen!r} is not HOST:PORT", remedy="write 127.0.0.1:9095")
    return host.strip("[]"), int(port)
