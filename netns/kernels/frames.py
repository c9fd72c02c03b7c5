"""The language that host and guest speak on the serial line between them.

A frame is one byte of kind, four bytes of length (big endian) and the payload. Both sides import
this module; inside the guest it is the first thing to run, hence its few imports.
"""

import struct
from collections.abc import Iterator

HEADER = struct.Struct(">BI")
LARGEST = 64 * 1024  # payload bytes of a frame of data; control frames are small
INTERRUPT_KEY = b"\x03"  # Ctrl-C
CREDIT = 64 * 1024  # bytes of input that may be on the way and not yet taken by the command
# Bytes that may be on the line to the guest and not yet read there. A terminal line that holds
# 4 kB of unread input is throttled, and User-Mode Linux never hears of that line again: its
# interrupt is taken away at that moment and not given back (seen with 6.1). So it must not happen.
WINDOW = 3072

# guest -> host
HELLO = 1  # the guest is up and knows what to run; from here on the line is binary clean
STDOUT = 2  # bytes of the command's standard output
STDERR = 3  # … of its standard error
TTY = 4  # … of its terminal
TAKEN = 5  # u32: so many bytes of input were taken; more may be sent
INTERRUPTED = 6  # u32: 1 if the keys just sent became an interrupt signal, 0 if mere keys
EXITED = 7  # u32: exit code; all output came before, all files are written
READ = 8  # u32: so many bytes were read from the line; more may be written to it
# host -> guest
STDIN = 17  # bytes of standard input or keys; an empty frame is its end
SIGNAL = 18  # u32: number of a signal for the command
RESIZED = 19  # two u32: rows and columns of the terminal
CLOSED = 20  # u32, STDOUT or STDERR: nobody reads this any more


def pack(kind: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return HEADER.pack(kind, len(payload)) + payload


def pack_number(kind: int, *numbers: int) -> bytes:
    """Return a frame whose payload is unsigned 32-bit numbers."""
    return pack(kind, struct.pack(f">{len(numbers)}I", *numbers))


def numbers(payload: bytes) -> tuple[int, ...]:
    """Return the unsigned 32-bit numbers of a payload."""
    return struct.unpack(f">{len(payload) // 4}I", payload)


class Decoder:
    """Cuts a stream of bytes into frames; the stream may be cut anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add bytes and yield (kind, payload) of every frame that is now complete."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer, start)
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            yield kind, bytes(self._buffer[start + HEADER.size : end])
            start = end
        del self._buffer[:start]
