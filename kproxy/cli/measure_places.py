"""Addresses, ports and tokens as they are written on the command line of ``kproxy measure``."""

from ipaddress import ip_address
from pathlib import Path

from kproxy.errors import UsageError
from kproxy.kernel.inet import IPAddress


def split(text: str, option: str, default: int | None = None) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` (IPv6 in brackets). UsageError names the option."""
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]") and default is not None:
        return text[1:-1], default
    bare = text.count(":") > 1 and not text.startswith("[")
    if bare or not colon:
        if default is not None and (not colon or _is_address(text)):
            return text, default
        raise UsageError(f"{option} {text!r}", remedy="ADDRESS:PORT, IPv6 as [ADDRESS]:PORT")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"{option} {text!r}: {port!r} is not a port from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def target(
    text: str, default: int | None = None, *, option: str = "--to"
) -> tuple[IPAddress, int]:
    """Return address and port of ``--to``, or of what else names it. UsageError."""
    host, port = split(text, option, default)
    try:
        return ip_address(host), port
    except ValueError:
        raise UsageError(
            f"{option} {text!r}: {host!r} is not an IP address",
            remedy="names are not looked up: that would be measured, too",
        ) from None


def control_place(text: str, option: str) -> tuple[str, int]:
    """Return address (empty: all) and port of a control channel. UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise UsageError(f"{option} {text!r}", remedy="[ADDRESS]:PORT, for example :7890")
    return host.removeprefix("[").removesuffix("]"), int(port)


def read_token(text: str) -> str:
    """Return a token; ``@FILE`` is read from there. UsageError."""
    if not text.startswith("@"):
        return text
    try:
        found = Path(text[1:]).read_text().strip()
    except OSError as error:
        raise UsageError(f"--token {text}: {error.strerror}") from None
    if not found:
        raise UsageError(f"--token {text}: is empty")
    return found
