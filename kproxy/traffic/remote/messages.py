"""What the two ends of a measurement say to each other: one JSON object a line. Pure.

==========================================  =====================================================
from the sender                             from the receiver
==========================================  =====================================================
(has connected)                             ``{"event": "hello", "format", "challenge"}``
``{"do": "hello", "format", "proof",        ``{"event": "welcome", "proof", "name", "interface",
"challenge"}``                              "port", "clock", "most_packets", "timestamps"}``
``{"do": "clock", "ns"}``                    ``{"event": "clock", "ns", "received", "answered"}``
``{"do": "start", "trial", "packets",       ``{"event": "started"}``
"rate_pps"}``
``{"do": "count"}``                         ``{"event": "count", "packets": N}``
``{"do": "stop"}``                          ``{"event": "stopped", "drops", …}``, then
                                            ``{"event": "data", "z": …}`` (base64 of zlib) …,
                                            ``{"event": "end", "bytes", "sha256"}``
anything wrong                              ``{"event": "error", "message"}``; the end
==========================================  =====================================================

The token itself does not go over the wire: each side proves by an HMAC of the other's random
challenge that it knows it. Who has a proof can try guesses, so a token must not be guessable, as
those that the receiver makes are not.
"""

import hashlib
import hmac
import json
from typing import Any

from kproxy.errors import MeasurementError

FORMAT = "kproxy.measure/1"
DEFAULT_PORT = 7890
LONGEST_LINE = 1 << 16
"""Longer lines end the connection: whoever sends them speaks something else."""
PIECE = 24_000
"""Bytes of compressed records in one line."""
MOST_PACKETS = 1 << 24
"""What a receiver takes in one run, unless it is told otherwise: 0.8 GB of records."""
SENDER, RECEIVER = "sender", "receiver"


def pack(**fields: Any) -> bytes:
    """Return one line."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def unpack(line: bytes) -> dict[str, Any]:
    """Return the object of a line. MeasurementError: it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MeasurementError(
            f"the other end says {line[:40]!r}, which is not {FORMAT}",
            remedy="is it a `kproxy measure receive`?",
        )
    return value


def proof(token: str, challenge: str, who: str) -> str:
    """Return what proves that ``who`` knows the token."""
    text = f"{FORMAT} {who} {challenge}"
    return hmac.new(_bytes(token), _bytes(text), hashlib.sha256).hexdigest()


def is_proof(given: object, token: str, challenge: str, who: str) -> bool:
    """Return whether that proves it."""
    return isinstance(given, str) and hmac.compare_digest(
        _bytes(given), _bytes(proof(token, challenge, who))
    )


def _bytes(text: str) -> bytes:
    # JSON may have halves of characters.
    return text.encode(errors="surrogatepass")


def whole(message: dict[str, Any], field: str, *, low: int = 0, high: int = 1 << 62) -> int:
    """Return a whole number of a message. MeasurementError, which names the field."""
    value = message.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise MeasurementError(f"{field}: {value!r} is not a whole number from {low} to {high}")
    return value
