"""gRPC's health protocol, as far as a probe speaks it; the real thing is in tests/contract."""

import pytest

from kproxy.controlplane import grpchealth
from kproxy.controlplane.probesockets import Health

SETTINGS = bytes.fromhex("000000 04 00 00000000")
HEADERS = bytes.fromhex("000001 01 04 00000001 88")
TRAILERS = bytes.fromhex("000001 01 05 00000001 88")


def data(message: bytes, flags: int = 0, stream: int = 1, compressed: int = 0) -> bytes:
    body = bytes((compressed,)) + len(message).to_bytes(4) + message
    return len(body).to_bytes(3) + bytes((0, flags)) + stream.to_bytes(4) + body


def test_a_request_is_the_preface_and_three_frames() -> None:
    sent = grpchealth.request("fd00::1", 2379, "shop")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert sent.startswith(preface + SETTINGS)
    assert b"\x00\x05:path\x1c/grpc.health.v1.Health/Check" in sent
    assert b"[fd00::1]:2379" in sent
    assert sent.endswith(data(b"\x0a\x04shop", flags=1))


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"\x08\x01", "SERVING"),
        (b"\x08\x02", "NOT_SERVING"),
        (b"\x08\x03", "SERVICE_UNKNOWN"),
        (b"", "UNKNOWN"),
        (b"\x08\x07", None),
    ],
)
def test_the_status_is_read_in_whatever_pieces_it_comes(
    message: bytes, status: str | None
) -> None:
    answer = SETTINGS + HEADERS + data(message) + TRAILERS
    assert grpchealth.status(answer) == status
    for end in range(len(answer)):
        assert not grpchealth.is_complete(answer[:end])
    assert grpchealth.is_complete(answer)
    outcome = Health().judge(answer, "192.0.2.1:80")
    assert outcome.success is (status == "SERVING")
    if status and not outcome.success:
        assert outcome.message == f'service unhealthy (responded with "{status}")'


def test_other_streams_and_compressed_messages_say_nothing() -> None:
    assert grpchealth.status(SETTINGS + data(b"\x08\x01", stream=3)) is None
    assert grpchealth.status(SETTINGS + data(b"\x08\x01", compressed=1)) is None


def test_padding_is_left_out_also_where_its_length_is_missing() -> None:
    padded = b"\x02" + data(b"\x08\x01")[9:] + bytes(2)
    frame = len(padded).to_bytes(3) + bytes.fromhex("00 08 00000001") + padded
    assert grpchealth.status(SETTINGS + frame) == "SERVING"
    assert grpchealth.status(SETTINGS + bytes.fromhex("000000 00 09 00000001")) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SETTINGS + TRAILERS, "192.0.2.1:80: health rpc failed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "192.0.2.1:80: the answer is not gRPC"),
        (b"", "192.0.2.1:80: the answer is not gRPC"),
    ],
)
def test_what_is_no_answer_is_told(answer: bytes, words: str) -> None:
    outcome = Health().judge(answer, "192.0.2.1:80")
    assert not outcome.success
    assert outcome.message.startswith(words)
