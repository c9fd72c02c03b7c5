"""A receiver in a thread of this process, and what sends to it over loopback without root."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import ports

from kproxy.traffic import wire
from kproxy.traffic.phc import CardClock
from kproxy.traffic.remote import channel
from kproxy.traffic.remote.receiver import Place, Receiver

TOKEN = "a secret"


@dataclass
class Ends:
    """A receiver: its control port, its UDP port, and what it has said."""

    control: int
    port: int
    said: list[str] = field(default_factory=list)

    def connect(self) -> channel.Channel:
        return channel.connect("127.0.0.1", self.control)


@contextlib.contextmanager
def receiver(
    *, runs: int = 1, most_packets: int = 1000, card: CardClock | None = None
) -> Iterator[Ends]:
    """Run a receiver until it has handed over so many runs; the last one is made by the test."""
    port = ports.unused("::", socket.SOCK_DGRAM)
    with channel.listen("127.0.0.1", 0) as listener:
        ends = Ends(listener.getsockname()[1], port)
        place = Place(name="far", port=port, most_packets=most_packets, card=card)
        served = Receiver(place, TOKEN, listener, ends.said.append)

        def serve() -> None:
            for _ in range(runs):
                served.runs = 0
                served.serve(once=True)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield ends
        thread.join(60)
        assert not thread.is_alive()


def send_probes(port: int, trial: int, numbers: range, *, flow: int = 0) -> None:
    """Send probe packets as an ordinary program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for seq in numbers:
            sock.sendto(wire.header(trial, flow, seq=seq, sent_ns=seq + 1), ("127.0.0.1", port))
