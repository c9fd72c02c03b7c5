"""The small checks that validation of all kinds is made of, by the rules of Kubernetes."""

import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from kproxy.errors import InvalidObject

from . import addresses

PROTOCOLS = ("TCP", "UDP", "SCTP")

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
DNS_LABEL = re.compile(_LABEL)
DNS_1035_LABEL = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
PORT_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9](?:-?[a-z0-9])*")
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<unit>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3}|)"
)
_UNITS = {
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("num", start=-3)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
"""Units of quantities, as Kubernetes has them: one after another a thousand times larger."""


def is_qualified(text: str) -> bool:
    """Return whether a text is a name, perhaps with a domain and a slash before it."""
    prefix, slash, name = text.rpartition("/")
    good = bool(LABEL_VALUE.fullmatch(name)) and 0 < len(name) <= 63
    return good and (not slash or (len(prefix) <= 253 and bool(DNS_SUBDOMAIN.fullmatch(prefix))))


class Checker:
    """Gathers what is wrong with one object."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.problems: list[InvalidObject] = []

    def fault(self, field: str, problem: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(InvalidObject(self.label, field, problem, remedy=remedy))

    def name(
        self, field: str, value: str, pattern: re.Pattern[str] = DNS_LABEL, longest: int = 63
    ) -> None:
        """Check a name of the DNS kind."""
        if not value:
            self.fault(field, "is missing", "add it")
        elif len(value) > longest:
            self.fault(field, f"must be no more than {longest} characters", "shorten it")
        elif not pattern.fullmatch(value):
            first = "a letter" if pattern is DNS_1035_LABEL else "a letter or digit"
            dots = ", '.'" if pattern is DNS_SUBDOMAIN else ""
            remedy = f"use lower case letters, digits, '-'{dots}; begin with {first}"
            self.fault(field, f"{value!r} is not a valid name", remedy)

    def one_of(self, field: str, value: str, known: Collection[str]) -> bool:
        """Check a word; return whether it is a known one."""
        if value in known:
            return True
        self.fault(field, f"unsupported value {value!r}", f"use one of {', '.join(known)}")
        return False

    def port(self, field: str, value: int) -> None:
        """Check a port number."""
        if not 1 <= value <= 65535:
            self.fault(field, f"{value} is out of range", "use a port from 1 to 65535")

    def port_or_name(self, field: str, value: int | str) -> None:
        """Check a port given by number or by the name of a container's port."""
        if isinstance(value, int):
            self.port(field, value)
        elif value.isdigit():
            self.fault(field, f"{value!r} is text", "write the number without quotes")
        else:
            self.port_name(field, value)

    def port_name(self, field: str, value: str) -> None:
        """Check the name of a container's port (IANA service name)."""
        if len(value) > 15 or not PORT_NAME.fullmatch(value):
            remedy = "use up to 15 lower case letters, digits and single '-', at least one letter"
            self.fault(field, f"{value!r} is not a port name", remedy)

    def address(self, field: str, text: str, version: int | None = None) -> int | None:
        """Check an address, of a family if given; return its family (4 or 6)."""
        parsed = addresses.parse_address(text)
        if parsed is None:
            remedy = "write an IPv4 address without leading zeros, or an IPv6 address"
            self.fault(field, f"{text!r} is not an IP address", remedy)
            return None
        if version is not None and parsed.version != version:
            remedy = f"give an IPv{version} address"
            self.fault(field, f"{text} is not an IPv{version} address", remedy)
        return parsed.version

    def usable_address(self, field: str, text: str, version: int | None = None) -> None:
        """Check an address that packets can be sent to from another machine."""
        if self.address(field, text, version) and (use := addresses.special_use(text)):
            self.fault(field, f"{text} is a {use} address", "give an address others can reach")

    def network(self, field: str, text: str) -> None:
        """Check a network in CIDR notation."""
        if addresses.parse_network(text) is None:
            remedy = "use CIDR notation, such as 10.128.0.0/24"
            self.fault(field, f"{text!r} is not a network", remedy)

    def labels(self, field: str, labels: Mapping[str, str] | None) -> None:
        """Check labels or a selector."""
        for key, value in (labels or {}).items():
            if not is_qualified(key):
                self.fault(field, f"{key!r} is not a label's name", "use [domain/]name")
            elif len(value) > 63 or not LABEL_VALUE.fullmatch(value):
                remedy = "use up to 63 letters, digits, '-', '_' and '.'"
                self.fault(f"{field}[{key}]", f"{value!r} is not a label's value", remedy)

    def annotations(self, field: str, annotations: Mapping[str, str] | None) -> None:
        """Check the names of annotations; their values may be anything."""
        for key in annotations or {}:
            if not is_qualified(key.lower()):
                self.fault(field, f"{key!r} is not an annotation's name", "use [domain/]name")

    def qualified(self, field: str, value: str, what: str) -> None:
        """Check a name that may have a domain before it, such as that of a taint."""
        if not value:
            self.fault(field, "is missing", "add it")
        elif not is_qualified(value):
            self.fault(field, f"{value!r} is not {what}", "use [domain/]name")

    def quantity(self, field: str, value: object) -> Decimal | None:
        """Check a quantity, and return it."""
        found = _QUANTITY.fullmatch(str(value)) if type(value) in (int, float, str) else None
        if found is None:
            problem = f"{value!r} is not a quantity"
            self.fault(field, problem, "write a number and a unit, such as 100m or 64Mi")
            return None
        unit = found["unit"]
        factor = _UNITS[unit] if unit in _UNITS else Decimal(f"1{unit}")
        return Decimal(found["number"]) * factor

    def unique(self, pairs: Iterable[tuple[str, object]], what: str) -> None:
        """Check that no value occurs twice among pairs of field and value."""
        seen: dict[object, str] = {}
        for field, value in pairs:
            if value in seen:
                problem = f"duplicate {what}, also in {seen[value]}"
                self.fault(field, problem, "remove one, or change it")
            else:
                seen[value] = field
