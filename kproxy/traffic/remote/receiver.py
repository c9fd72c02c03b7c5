"""The receiving end: waits for a sender who knows the token, records what arrives, hands it over.

One session at a time; whoever comes meanwhile is told so. A session ends when its sender says so,
when the sender is gone, or when it is silent for half a minute.
"""

import base64
import hashlib
import os
import secrets
import select
import socket
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kproxy.api.addresses import with_port
from kproxy.errors import MeasurementError, UsageError
from kproxy.exhaustion import wait_if_exhausted
from kproxy.traffic import recordfile, records, udp_receive
from kproxy.traffic.hwstamp import Stamps
from kproxy.traffic.phc import CardClock
from kproxy.traffic.remote import channel, messages
from kproxy.traffic.remote.channel import Channel

HANDSHAKE_SECONDS = 5.0
SILENCE_SECONDS = 30.0
_CHUNK = 1 << 20
_SPARE = 4096
"""Records beside those of packets: of the clock, one a second, and duplicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it receives: an interface (empty: any) and a UDP port; what it calls itself.

    ``card``: the clock of that interface's card, which stamps arrivals; None: the kernel does.
    """

    name: str
    port: int
    interface: str = ""
    most_packets: int = messages.MOST_PACKETS
    card: CardClock | None = None


class Recording:
    """One run: a socket and a record file in memory."""

    def __init__(self, place: Place, packets: int, rate_pps: float) -> None:
        self.capacity = 2 * packets + _SPARE  # duplicates are to be counted, not lost
        if place.card is not None:  # whose clock is read more often
            self.capacity += round(packets / rate_pps * 1e9 / place.card.every_ns)
        self.handed_over = False
        self._fd, path = channel.fresh_file("kproxy-received")
        try:
            self.writer = recordfile.RecordWriter(
                path, recordfile.KIND_RECEIVED, records.RECEIVED_SIZE, self.capacity, place.name
            )
            # It answers nobody: anybody can send to this port, also under another's address.
            self.recorder = udp_receive.Recorder(self.writer, echoes=False, card=place.card)
            self.sock = _socket(place, rate_pps)
        except OSError as error:
            os.close(self._fd)
            raise MeasurementError(
                f"no room for records of {packets:,} packets: {error.strerror}"
            ) from None
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Forget it."""
        self.sock.close()
        self.writer.close()
        os.close(self._fd)

    def take(self) -> None:
        """Take what has arrived."""
        self.recorder.readable(self.sock)

    def hand_over(self, line: Channel) -> None:
        """Send the record file, as far as it is filled."""
        self.take()
        drops = self.recorder.note_drops([self.sock])
        used, size = self.writer.place, os.fstat(self._fd).st_size
        line.send(
            event="stopped",
            packets=self.recorder.probes,
            drops=drops,
            overflow=self.writer.overflow,
            unstamped=self.recorder.unstamped,
            size=size,
        )
        digest, at = hashlib.sha256(), 0
        while at < used:
            data = os.pread(self._fd, min(_CHUNK, used - at), at)
            digest.update(data)
            packed = zlib.compress(data, 1)
            for begin in range(0, len(packed), messages.PIECE):
                piece = packed[begin : begin + messages.PIECE]
                last = begin + messages.PIECE >= len(packed)
                line.send(event="data", z=base64.b64encode(piece).decode(), last=last)
            at += len(data)
        line.send(event="end", bytes=used, sha256=digest.hexdigest())
        self.handed_over = True


def _socket(place: Place, rate_pps: float) -> socket.socket:
    try:
        sock = udp_receive.open_socket(
            place.port, packets_per_second=rate_pps, by_card=place.card is not None
        )
    except OSError as error:
        raise UsageError(
            f"--port {place.port}: {error.strerror}",
            remedy="another program receives there; give another port",
        ) from None
    if place.interface:
        device = place.interface.encode() + b"\0"
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        except OSError as error:
            sock.close()
            raise UsageError(f"--interface {place.interface}: {error.strerror}") from None
    return sock


class Receiver:
    """Serves senders until an exception (such as KeyboardInterrupt) ends it.

    ``told`` is called with a sentence when something happens. ``show`` with the packets so far.
    """

    def __init__(
        self,
        place: Place,
        token: str,
        listener: socket.socket,
        told: Callable[[str], None],
        show: Callable[[int], None] = lambda packets: None,
    ) -> None:
        self.place = place
        self._token = token
        self._listener = listener
        self._told = told
        self._show = show
        self._recording: Recording | None = None
        self.runs = 0
        listener.setblocking(False)

    @property
    def packets(self) -> int:
        """How many packets of the run that goes on have arrived."""
        return 0 if self._recording is None else self._recording.recorder.probes

    def serve(self, *, once: bool = False) -> None:
        """Serve one sender after the other; ``once``: until one has had its records."""
        _socket(self.place, 1.0).close()  # that the port is taken is known before a sender comes
        while not (once and self.runs):
            select.select([self._listener], [], [])
            try:
                sock, peer = self._listener.accept()
            except OSError as error:
                wait_if_exhausted(error)
                continue  # else it has gone again
            with Channel(sock, _peer(peer)) as line:
                try:
                    if self._welcome(line):
                        self._session(line)
                except (MeasurementError, UsageError) as error:
                    self._refuse(line, str(error))
                finally:
                    self._forget(line)

    def _welcome(self, line: Channel) -> bool:
        """Let in who knows the token; says so, and why not."""
        challenge = secrets.token_hex(16)
        line.send(event="hello", format=messages.FORMAT, challenge=challenge)
        said = line.receive(HANDSHAKE_SECONDS)
        if said.get("do") != "hello" or said.get("format") != messages.FORMAT:
            speaks = repr(said.get("format"))[:40]
            self._refuse(line, f"speaks {speaks}, this is {messages.FORMAT}")
            return False
        if not messages.is_proof(said.get("proof"), self._token, challenge, messages.SENDER):
            self._refuse(line, "does not know the token")
            return False
        theirs = str(said.get("challenge"))
        line.send(
            event="welcome",
            proof=messages.proof(self._token, theirs, messages.RECEIVER),
            name=self.place.name,
            interface=self.place.interface,
            port=self.place.port,
            clock=channel.clock_identity(),
            most_packets=self.place.most_packets,
            timestamps=Stamps.HARDWARE if self.place.card is not None else Stamps.SOFTWARE,
        )
        self._told(f"{line.name} is the sender")
        return True

    def _refuse(self, line: Channel, why: str) -> None:
        self._told(f"{line.name}: {why}")
        try:
            line.send(1.0, event="error", message=why)
        except MeasurementError:
            return  # it does not want to know

    def _session(self, line: Channel) -> None:
        deadline = time.monotonic() + SILENCE_SECONDS
        while True:
            watched: list[Any] = [line, self._listener]
            if self._recording is not None:
                watched.append(self._recording.sock)
            left = deadline - time.monotonic()
            if left <= 0:
                raise MeasurementError(f"silent for {SILENCE_SECONDS:.0f} s")
            readable, _, _ = select.select(watched, [], [], left)
            if self._recording is not None and self._recording.sock in readable:
                self._recording.take()
            if line in readable:
                while (said := line.line()) is not None:
                    deadline = time.monotonic() + SILENCE_SECONDS
                    if not self._obey(line, said):
                        return
            # Only now: if this sender has just gone, the next one is welcome.
            if self._listener in readable:
                self._turn_away()

    def _obey(self, line: Channel, said: dict[str, Any]) -> bool:
        """Do what the sender says; return whether the session goes on."""
        # Read first: what is done before counts as time on the way, which makes the offset less
        # exact, but never wrong.
        now = time.monotonic_ns()
        what = said.get("do")
        if what == "clock":
            asked = messages.whole(said, "ns")
            answered = time.monotonic_ns()
            line.send(event="clock", ns=asked, received=now, answered=answered)
        elif what == "count":
            line.send(event="count", packets=self.packets)
            self._show(self.packets)
        elif what == "start":
            self._start(said)
            line.send(event="started")
        elif what == "stop" and self._recording is not None:
            self._recording.hand_over(line)
            self._told(f"{line.name}: {self.packets:,} packets received, records handed over")
            self.runs += 1
            return False
        else:
            raise MeasurementError(f"unknown command {str(what)[:40]!r}")
        return True

    def _start(self, said: dict[str, Any]) -> None:
        if self._recording is not None:
            raise MeasurementError("start: a run is going on")
        packets = messages.whole(said, "packets", low=1)
        if packets > self.place.most_packets:
            raise MeasurementError(
                f"{packets:,} packets are more than the {self.place.most_packets:,} that fit here",
                remedy="`kproxy measure receive --most-packets N`, or a shorter run",
            )
        rate = messages.whole(said, "rate_pps", low=1, high=100_000_000)
        self._recording = Recording(self.place, packets, rate)

    def _turn_away(self) -> None:
        try:
            sock, peer = self._listener.accept()
        except OSError:
            return
        with Channel(sock, _peer(peer)) as line:
            self._refuse(line, "another sender is being served")

    def _forget(self, line: Channel) -> None:
        if self._recording is not None:
            if not self._recording.handed_over:
                self._told(f"{line.name}: {self.packets:,} packets had come; nobody has had them")
            self._recording.close()
            self._recording = None


def _peer(address: Any) -> str:
    return with_port(address[0].removeprefix("::ffff:"), address[1])
