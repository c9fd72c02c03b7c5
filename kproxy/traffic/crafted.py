"""Packets as a user writes them, ``IP(dst='10.96.0.10')/TCP(dport=80, flags='S')``: scapy's words.

What is written is read, never run: Python's own parser makes a tree of it, and only layers that
are named here, with fields that they have and literal values, joined by ``/``, become a packet.
"""

import ast
import functools
import ipaddress
import itertools
import logging
import re
from collections.abc import Callable
from typing import Any

from scapy.fields import Field, IP6Field, IPField, MACField
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkHeartbeatReq, SCTPChunkInit
from scapy.packet import Packet, Raw

from kproxy.errors import UsageError

# It warns of routes and neighbours that it does not find for a packet that is only looked at.
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

LAYERS: dict[str, type[Packet]] = {
    layer.__name__: layer
    for layer in (
        *(Ether, Dot1Q, IP, IPv6, UDP, TCP, SCTP, SCTPChunkInit, SCTPChunkHeartbeatReq),
        *(ICMP, ICMPv6EchoRequest, Raw),
    )
}
LONGEST = 2_000
MOST_LAYERS = 16
_MANUAL = "see scapy's manual for this field"
_SEVERAL = "its values stand for several packets; this is one"
_ONE_VALUE = "write one value for each field"
_REMEDY = "write layers joined by /, for example IP(dst='10.96.0.10')/UDP(dport=53)"


def parse(text: str, option: str = "--packet") -> Packet:
    """Return the packet that is written. Raises UsageError naming the place in the text."""

    def wrong(column: int, problem: str, remedy: str = _REMEDY) -> UsageError:
        return UsageError(f"{option}: column {column + 1}: {problem}", remedy=remedy)

    if len(text) > LONGEST:
        raise wrong(LONGEST, f"longer than {LONGEST} characters")
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise wrong((error.offset or 1) - 1, error.msg) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise wrong(0, f"cannot be read: {error}") from None
    nodes = _joined(tree.body, wrong)
    layers = [_layer(node, wrong) for node in nodes]
    packet = functools.reduce(lambda above, below: above / below, layers)
    for node, layer in zip(nodes, layers, strict=True):
        _check(node, layer, wrong)
    try:
        bytes(packet)
    except Exception as error:  # whatever scapy makes of layers that do not fit
        raise wrong(0, f"no packet comes of it: {_first_line(error)}") from None
    return packet


_Wrong = Callable[..., UsageError]


def _joined(node: ast.expr, wrong: _Wrong) -> list[ast.expr]:
    """Return the operands of a chain of ``/``."""
    found: list[ast.expr] = []
    while isinstance(node, ast.BinOp):
        if not isinstance(node.op, ast.Div):
            raise wrong(node.right.col_offset - 1, "layers are joined by /")
        found.append(node.right)
        node = node.left
        if len(found) == MOST_LAYERS:
            raise wrong(found[-1].col_offset, f"more than {MOST_LAYERS} layers")
    return [node, *reversed(found)]


def _layer(node: ast.expr, wrong: _Wrong) -> Packet:
    at = node.col_offset
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        value = node.value
        return Raw(load=value.encode() if isinstance(value, str) else value)
    name = node.func if isinstance(node, ast.Call) else node
    if not isinstance(name, ast.Name):
        raise wrong(at, "is no layer")
    layer = LAYERS.get(name.id)
    if layer is None:
        raise wrong(at, f"{name.id!r} is no layer that can be used", f"there are: {_names()}")
    if not isinstance(node, ast.Call):
        return layer()
    if node.args:
        raise wrong(
            node.args[0].col_offset, "a value without its field's name", "write field=value"
        )
    fields = {}
    for keyword in node.keywords:
        field = _field(layer, keyword, wrong)
        fields[field.name] = value = _literal(keyword.value, wrong)
        if isinstance(value, list | tuple) and not field.islist:
            raise wrong(at, f"{name.id}: {_SEVERAL}", _ONE_VALUE)
        _check_address(keyword.value, field, value, wrong)
    try:
        return layer(**fields)
    except Exception as error:  # scapy checks values in many ways
        raise wrong(at, f"{name.id}: {_first_line(error)}", _MANUAL) from None


def _check(node: ast.expr, layer: Packet, wrong: _Wrong) -> None:
    """See whether a layer can be built, and is one: scapy takes lists and ranges for many."""
    name, at = type(layer).__name__, node.col_offset
    try:
        alone = layer.copy()
        alone.remove_payload()
        if len(list(itertools.islice(iter(alone), 2))) > 1:
            raise wrong(at, f"{name}: {_SEVERAL}", _ONE_VALUE)
        if not isinstance(layer, ICMPv6EchoRequest):  # its checksum needs what is below
            bytes(alone)
    except UsageError:
        raise
    except Exception as error:  # … some only when it builds
        raise wrong(at, f"{name}: {_first_line(error)}", _MANUAL) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _check_address(node: ast.expr, field: Any, value: Any, wrong: _Wrong) -> None:
    """Refuse what is no address where one belongs: scapy would ask a name server for names."""
    kind = next((kind for known, kind in _ADDRESSES.items() if isinstance(field, known)), None)
    if kind is None or (value is None and kind == "MAC"):
        return
    if not _IS_ADDRESS[kind](str(value)):
        raise wrong(
            node.col_offset, f"{value!r} is not an address", f"write a plain {kind} address"
        )


def _is_ip(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return "%" not in text


_ADDRESSES: dict[type[Field[Any, Any]], str] = {IPField: "IPv4", IP6Field: "IPv6", MACField: "MAC"}
_IS_ADDRESS: dict[str, Callable[[str], object]] = {
    "IPv4": functools.partial(_is_ip, kind=ipaddress.IPv4Address),
    "IPv6": functools.partial(_is_ip, kind=ipaddress.IPv6Address),
    "MAC": re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}").fullmatch,
}


def _names() -> str:
    return ", ".join(sorted(LAYERS))


def _field(layer: type[Packet], keyword: ast.keyword, wrong: _Wrong) -> Any:
    known = {field.name: field for field in layer.fields_desc}
    at = keyword.col_offset
    if keyword.arg is None:
        raise wrong(at, "** is not a field", "write field=value")
    if keyword.arg not in known:
        raise wrong(
            at,
            f"{layer.__name__} has no field {keyword.arg!r}",
            f"it has: {', '.join(known)}",
        )
    field = known[keyword.arg]
    while hasattr(field, "fld"):  # in what makes it conditional, or emphasizes it
        field = field.fld
    return field


def _literal(node: ast.expr, wrong: _Wrong) -> Any:
    """Return a number, a text, bytes, None, or a list of such."""
    if isinstance(node, ast.Constant) and (
        node.value is None or isinstance(node.value, int | str | bytes)
    ):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        values = [_literal(one, wrong) for one in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, wrong)
        if isinstance(value, int):
            return -value
    raise wrong(
        node.col_offset,
        "is no plain value",
        "values are numbers, texts in quotes, bytes, None, or lists of these",
    )
