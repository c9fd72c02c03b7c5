"""The form of HTTP requests and responses, as far as a webhook needs it. No sockets here."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

HEAD_MOST = 16 * 1024
"""Longest request line with headers, in bytes."""
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_FIRST = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,2000}) HTTP/1\.[01]")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Request(NamedTuple):
    """A request without its body. Names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    length: int
    """Bytes of the body that follow."""


class Answer(msgspec.Struct, frozen=True):
    """Status code, body and headers of a response."""

    code: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class BadRequest(Exception):
    """A request is refused for its form. ``code`` is the HTTP status."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(problem)
        self.code = code


def parse_head(head: bytes) -> Request:
    """Read a request up to the empty line. Raises BadRequest."""
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    line = _FIRST.fullmatch(first)
    if line is None:
        raise BadRequest(400, "no request of HTTP/1.1")
    headers: dict[str, str] = {}
    for text in rest:
        # In steps, each in one pass: a stranger writes this, and must not be able to keep us busy.
        written, colon, value = text.partition(":")
        name = written.lower()
        is_form = colon and _NAME.fullmatch(name) and not _CONTROL.search(value)
        if not is_form or (name in headers and name in _ONCE):
            raise BadRequest(400, "a header is malformed, or there twice")
        headers[name] = value.strip(" \t")
    path, _, query = line[2].partition("?")
    return Request(line[1], path, query, headers, _length(line[1], headers))


_ONCE = ("authorization", "content-length", "transfer-encoding", "host")


def _length(method: str, headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequest(411, "send the body with Content-Length")
    text = headers.get("content-length")
    if text is None:
        if method == "POST":
            raise BadRequest(411, "Content-Length is missing")
        return 0
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise BadRequest(400, "Content-Length is no number")
    if int(text) and method != "POST":
        raise BadRequest(400, f"{method} takes no body")
    return int(text)


def render(answer: Answer, *, head_only: bool = False) -> bytes:
    """Return the bytes of a response, after which the connection is closed."""
    lines = [
        f"HTTP/1.1 {answer.code} {_REASONS[answer.code]}",
        f"Content-Type: {answer.content_type}",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
    ]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head if head_only else head + answer.body


def problem(code: int, words: str, **headers: str) -> Answer:
    """Return an answer that tells what is wrong."""
    return Answer(code, msgspec.json.encode({"error": words}) + b"\n", headers=headers)
