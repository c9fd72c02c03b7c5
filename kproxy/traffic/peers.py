"""Other ways of sending, to compare ours with: what scapy does itself, and what the kernel allows.

    python -m kproxy.traffic.peers WAY INTERFACE SECONDS FRAME…

WAY: ``sendp`` (scapy's, a call for each packet), ``sendp-list`` (one call for all packets), or
``sendmmsg`` (a plain program: ready frames, 64 for each system call, as fast as it can: no stamp,
no pace, no record). A FRAME is hexadecimal. Prints ``{"sent": …, "seconds": …}``.
"""

import ctypes
import json
import sys
import time
from typing import Any

from kproxy.traffic import mmsg, ring

_TOGETHER = 64
_LIST = 500


def sendp(interface: str, frames: list[bytes], seconds: float) -> int:
    """Send with scapy, one call for each packet."""
    packets, send = _scapy(frames)
    until, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        send(packets[sent % len(packets)], iface=interface, verbose=False)
        sent += 1
    return sent


def sendp_list(interface: str, frames: list[bytes], seconds: float) -> int:
    """Send with scapy, one call for many packets."""
    packets, send = _scapy(frames)
    many = [packets[number % len(packets)] for number in range(_LIST)]
    until, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        send(many, iface=interface, verbose=False)
        sent += len(many)
    return sent


def _scapy(frames: list[bytes]) -> tuple[list[Any], Any]:
    from scapy.layers.l2 import Ether
    from scapy.sendrecv import sendp as send

    return [Ether(frame) for frame in frames], send


def sendmmsg(interface: str, frames: list[bytes], seconds: float) -> int:
    """Send ready frames in batches, and nothing else."""
    sock = ring.packet_socket(interface)
    buffers = [bytearray(frames[number % len(frames)]) for number in range(_TOGETHER)]
    iovecs, headers = (mmsg.IoVec * _TOGETHER)(), (mmsg.MsgHdr * _TOGETHER)()
    for number, buffer in enumerate(buffers):
        iovecs[number].base, iovecs[number].len = mmsg.address_of(buffer), len(buffer)
        headers[number].iov = ctypes.addressof(iovecs) + number * ctypes.sizeof(mmsg.IoVec)
        headers[number].iovlen = 1
    fd, address = sock.fileno(), ctypes.addressof(headers)
    until, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        sent += max(0, mmsg.sendmmsg(fd, address, _TOGETHER))
    sock.close()
    return sent


WAYS = {"sendp": sendp, "sendp-list": sendp_list, "sendmmsg": sendmmsg}


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    way, interface, seconds, *frames = arguments
    ready = [bytes.fromhex(frame) for frame in frames]
    WAYS[way](interface, ready, 0.0)  # imports what it needs, before the clock runs
    begun = time.monotonic()
    sent = WAYS[way](interface, ready, float(seconds))
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - begun}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
