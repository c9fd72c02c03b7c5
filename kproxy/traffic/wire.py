"""What a probe packet carries, as laid out in its UDP payload (all big-endian).

======  =====  ==========================================================================
offset  size   field
======  =====  ==========================================================================
0       4      magic ``kpx1``: this is a probe, record it
4       4      trial: packets of an earlier trial that arrive late must not be counted
8       4      flow
12      4      flags: bit 0 asks the responder to send the datagram back as well
16      8      sequence number within the flow, from 0
24      8      send time, nanoseconds of CLOCK_MONOTONIC (0 while the frame is a template)
======  =====  ==========================================================================

Anything behind the header is padding.
"""

import struct

MAGIC = b"kpx1"
HEADER = struct.Struct("!4sIIIQQ")
#: Where the sender writes into the template for each packet: sequence number and send time.
STAMP_AT = 16
FLAG_ECHO = 1


def header(trial: int, flow: int, *, flags: int = 0, seq: int = 0, sent_ns: int = 0) -> bytes:
    """Return the 32 bytes with which a probe's payload begins."""
    return HEADER.pack(MAGIC, trial, flow, flags, seq, sent_ns)
