"""One question of gRPC's health protocol, as bytes of HTTP/2: how a probe asks a container. Pure.

After "GRPC Health Checking Protocol" (``grpc.health.v1.Health/Check``) and RFC 9113, as far as one
call over a connection of its own needs them: everything that is to be said is said at once, before
the server's settings are known, which HTTP/2 allows.
"""

from collections.abc import Iterator

from kproxy.api.addresses import with_port

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
_FRAME_HEAD = 9
_CALL = 1
"""The number of the stream."""
_MESSAGE_HEAD = 5
"""Bytes before a message: whether it is compressed, and its length."""
STATUS = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING = "SERVING"


def request(host: str, port: int, service: str) -> bytes:
    """Return what a client sends: a call for the health of a service; empty: of the server."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", with_port(host, port)),
        ("content-type", "application/grpc"),
        ("user-agent", "kube-probe/kproxy"),
        ("te", "trailers"),
    )
    headers = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
    word = service.encode()
    asked = b"\x0a" + _varint(len(word)) + word if word else b""
    message = b"\0" + len(asked).to_bytes(4) + asked
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _CALL, headers)
        + _frame(_DATA, _END_STREAM, _CALL, message)
    )


def is_complete(answer: bytes) -> bool:
    """Return whether a server has said all that it will."""
    for kind, flags, stream, _ in _frames(answer):
        if kind == _GOAWAY or (stream == _CALL and (kind == _RST_STREAM or _ends(kind, flags))):
            return True
    return False


def status(answer: bytes) -> str | None:
    """Return one of STATUS; None: the server did not say."""
    data = b""
    for kind, flags, stream, payload in _frames(answer):
        if kind == _DATA and stream == _CALL:
            padded = payload and flags & _PADDED
            data += payload[1 : len(payload) - payload[0]] if padded else payload
    if len(data) < _MESSAGE_HEAD or data[0]:
        return None
    message = data[_MESSAGE_HEAD : _MESSAGE_HEAD + int.from_bytes(data[1:_MESSAGE_HEAD])]
    number = message[1] if message[:1] == b"\x08" and len(message) > 1 else 0
    return STATUS[number] if number < len(STATUS) else None


def is_spoken(answer: bytes) -> bool:
    """Return whether an answer is HTTP/2: a server begins with its settings."""
    return next((kind == _SETTINGS for kind, *_ in _frames(answer)), False)


def _ends(kind: int, flags: int) -> bool:
    return kind in (_DATA, _HEADERS) and bool(flags & _END_STREAM)


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, stream and payload of each frame that is there as a whole."""
    while len(data) >= _FRAME_HEAD:
        end = _FRAME_HEAD + int.from_bytes(data[:3])
        if len(data) < end:
            return
        stream = int.from_bytes(data[5:_FRAME_HEAD]) & 0x7FFFFFFF
        yield data[3], data[4], stream, data[_FRAME_HEAD:end]
        data = data[end:]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _text(word: str) -> bytes:
    """Return a string literal of HPACK, as it is; its length must be less than 127."""
    return bytes((len(word),)) + word.encode()


def _varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return found + bytes((number,))
