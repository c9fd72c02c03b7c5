"""From the bytes of a question to the bytes of an answer, by what a zone holds.

Authoritative for the cluster's domain, and for the names of addresses (``in-addr.arpa``,
``ip6.arpa``) as far as nobody else is asked for them. Knows no sockets and no clock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from . import records
from .records import TTL_S, Type
from .zone import NOTHING, Found, Zone

HEADER = 12
PLAIN_SIZE = 512
OUR_SIZE = 1232
"""How large a datagram we send at most: what passes everywhere without fragments."""
STREAM_SIZE = 65535
REVERSE = ("in-addr.arpa", "ip6.arpa")
MOST_ALIASES = 8
MOST_KNOWN = 4096
"""So many answers are kept, none larger than a datagram."""
_REFUSED_TYPES = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


class PodNames(StrEnum):
    """Whether pods have names of their addresses: ``10-244-1-2.NAMESPACE.pod``."""

    DISABLED = "disabled"
    INSECURE = "insecure"
    """For every address that is asked for: nobody looks whether there is such a pod."""
    VERIFIED = "verified"


class Outcome(NamedTuple):
    """What a question comes to."""

    wire: bytes | None
    """The answer; None: none is sent, or somebody else has to be asked."""
    rcode: str = ""
    type: str = "other"
    zone: str = ""
    ask: bytes | None = None
    """A question for resolvers elsewhere, whose answer is the answer or completes ``begun``."""
    begun: dns.message.Message | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a server answers."""

    domain: str = "cluster.local"
    pod_names: PodNames = PodNames.INSECURE
    forwards: bool = False
    """Whether other names are looked up elsewhere; if not, they are refused."""


class Answers:
    """Answers questions by a zone; ``ready`` says whether the zone is complete yet."""

    def __init__(self, zone: Zone, rules: Rules, ready: Callable[[], bool]) -> None:
        self._zone = zone
        self._rules = rules
        self._ready = ready
        self._turn = 0
        self._known: dict[tuple[bytes, bool], Outcome] = {}
        self._known_of: tuple[int, bool] = (-1, False)

    def answer(self, data: bytes, *, stream: bool) -> Outcome:
        """Return what a message that came comes to; ``stream``: over TCP.

        The same question again is answered with the same bytes but for its number, until the zone
        changes: clients that try domain after domain ask the same over and over.
        """
        state = self._zone.changes, self._ready()
        if state != self._known_of or len(self._known) >= MOST_KNOWN:
            self._known, self._known_of = {}, state
        place = data[2:], stream
        known = self._known.get(place)
        if known is not None and known.wire is not None:
            return known._replace(wire=data[:2] + known.wire[2:])
        turn = self._turn
        outcome = self._answer(data, stream)
        if outcome.wire is not None and turn == self._turn and len(outcome.wire) <= OUR_SIZE:
            self._known[place] = outcome
        return outcome

    def _answer(self, data: bytes, stream: bool) -> Outcome:
        if len(data) < HEADER or data[2] & 0x80:
            return Outcome(None)  # no question
        if (data[2] >> 3) & 0xF != dns.opcode.QUERY:
            return _bare(data, dns.rcode.NOTIMP)
        try:
            query = dns.message.from_wire(data)
            if len(query.question) != 1:
                return _bare(data, dns.rcode.FORMERR)
            return self._query(data, query, stream)
        except (dns.exception.DNSException, ValueError):
            return _bare(data, dns.rcode.FORMERR)

    def complete(self, begun: dns.message.Message, data: bytes, *, stream: bool) -> Outcome:
        """Return an answer that ended at an alias, with what resolvers said of that alias."""
        try:
            begun.answer.extend(dns.message.from_wire(data).answer)
        except (dns.exception.DNSException, ValueError):
            begun.set_rcode(dns.rcode.SERVFAIL)
        return self._finish(begun, self._rules.domain, stream)

    def failed(self, outcome: Outcome, data: bytes, *, stream: bool) -> Outcome:
        """Return the answer where resolvers said nothing."""
        if outcome.begun is not None:
            return self._finish(outcome.begun, outcome.zone, stream)
        return _bare(data, dns.rcode.SERVFAIL)

    def _query(self, data: bytes, query: dns.message.Message, stream: bool) -> Outcome:
        question = query.question[0]
        response = dns.message.make_response(
            query, recursion_available=self._rules.forwards, our_payload=OUR_SIZE
        )
        if query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
            return self._finish(response, "", stream)
        if question.rdclass != dns.rdataclass.IN or question.rdtype in _REFUSED_TYPES:
            response.set_rcode(dns.rcode.REFUSED)
            return self._finish(response, "", stream)
        name = _text(question.name)
        apex = self._apex(name)
        found = self._look(name) if apex else NOTHING
        elsewhere = not apex or (apex in REVERSE and not found.exists)
        if elsewhere and self._rules.forwards:
            return Outcome(None, "", _type(question), apex or ".", ask=data)
        if not apex:
            response.set_rcode(dns.rcode.REFUSED)
            return self._finish(response, "", stream)
        if not self._ready():
            response.set_rcode(dns.rcode.SERVFAIL)
            return self._finish(response, apex, stream)
        response.flags |= dns.flags.AA
        open_end = self._fill(response, question, name, apex, found)
        if open_end is not None and self._rules.forwards:
            ask = dns.message.make_query(open_end, question.rdtype, id=query.id).to_wire()
            return Outcome(None, "", _type(question), apex, ask=ask, begun=response)
        return self._finish(response, apex, stream)

    def _fill(
        self,
        response: dns.message.Message,
        question: dns.rrset.RRset,
        name: str,
        apex: str,
        found: Found,
    ) -> dns.name.Name | None:
        """Fill in what is known; return the name at which that ends, if that is elsewhere."""
        wanted = dns.rdatatype.to_text(question.rdtype)
        owner = question.name
        for _ in range(MOST_ALIASES):
            if Type.CNAME not in found.records or wanted in ("CNAME", "ANY"):
                break
            (target,) = found.records[Type.CNAME][:1]
            response.answer.append(_rrset(owner, Type.CNAME, [target]))
            owner, name = dns.name.from_text(target), target.rstrip(".")
            apex = self._apex(name)
            if not apex:
                return owner
            found = self._look(name)
        answer = list(self._sets(owner, name, found, wanted))
        response.answer.extend(answer)
        if not answer:
            if not found.exists:
                response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(self._authority(apex))
        response.additional.extend(self._additional(answer))
        return None

    def _sets(
        self, owner: dns.name.Name, name: str, found: Found, wanted: str
    ) -> Iterator[dns.rrset.RRset]:
        if name == self._rules.domain and wanted in ("SOA", "NS", "ANY"):
            if wanted == "NS":
                yield _rrset(owner, "NS", [f"ns.dns.{name}."])
            else:
                yield self._authority(name)
            return
        for kind, data in found.records.items():
            if wanted in (kind, "ANY"):
                yield _rrset(owner, kind, self._turned(data))
                return  # of ANY one set is enough (RFC 8482)

    def _look(self, name: str) -> Found:
        """Return what there is at a name of ours."""
        domain = self._rules.domain
        found = self._zone.lookup(name)
        if found.exists:
            return found
        if name == domain:
            return Found(True)
        if self._rules.pod_names is PodNames.INSECURE and name.endswith(f".pod.{domain}"):
            label, _, rest = name.partition(".")
            address = records.undashed(label)
            if address and rest.count(".") == domain.count(".") + 2:
                return Found(True, {Type.AAAA if ":" in address else Type.A: (address,)})
        return found

    def _apex(self, name: str) -> str:
        """Return of which of our zones a name is; empty: of none."""
        for zone in (self._rules.domain, *REVERSE):
            if name == zone or name.endswith(f".{zone}"):
                return zone
        return ""

    def _authority(self, apex: str) -> dns.rrset.RRset:
        domain = self._rules.domain
        serial = self._zone.changes + 1
        text = f"ns.dns.{domain}. hostmaster.{domain}. {serial} 7200 1800 86400 {TTL_S}"
        rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.SOA, text)
        return dns.rrset.from_rdata(f"{apex}.", TTL_S, rdata)

    def _additional(self, answer: Sequence[dns.rrset.RRset]) -> Iterator[dns.rrset.RRset]:
        """Yield the addresses of what SRV records point to."""
        told: set[str] = set()
        for rdata in (rdata for rrset in answer for rdata in rrset):
            if rdata.rdtype != dns.rdatatype.SRV or (name := _text(rdata.target)) in told:
                continue
            told.add(name)
            for kind, data in self._zone.lookup(name).records.items():
                if kind in (Type.A, Type.AAAA):
                    yield _rrset(rdata.target, kind, list(data))

    def _turned(self, data: Sequence[str]) -> list[str]:
        """Return records with another one first each time: many take the first one."""
        if len(data) == 1:
            return list(data)
        self._turn += 1
        first = self._turn % len(data)
        return [*data[first:], *data[:first]]

    def _finish(self, response: dns.message.Message, zone: str, stream: bool) -> Outcome:
        """Return the answer's bytes, cut to what the asker takes."""
        theirs = max(PLAIN_SIZE, response.request_payload)
        limit = STREAM_SIZE if stream else min(theirs, OUR_SIZE)
        rcode, kind = dns.rcode.to_text(response.rcode()), _type(response.question[0])
        try:
            wire = _wire(response, limit)
        except dns.exception.TooBig:
            response.additional.clear()
            try:
                wire = _wire(response, limit)
            except dns.exception.TooBig:
                # AA stays: without it glibc takes an empty answer for that of a lame server, and
                # never asks again over TCP.
                response.answer.clear()
                response.authority.clear()
                response.flags |= dns.flags.TC
                wire = _wire(response, limit)
        return Outcome(wire, rcode, kind, zone)


def _wire(response: dns.message.Message, limit: int) -> bytes:
    # What is first was chosen already, and must not depend on chance.
    return response.to_wire(max_size=limit, want_shuffle=False)


def _bare(data: bytes, rcode: dns.rcode.Rcode) -> Outcome:
    """Return an answer without anything, to what could not be read."""
    flags = bytes([0x80 | (data[2] & 0x79), rcode])
    return Outcome(data[:2] + flags + bytes(8), dns.rcode.to_text(rcode))


def _text(name: dns.name.Name) -> str:
    """Return a name in lower case without its last dot; octets that are no text stay escaped."""
    return name.to_text(omit_final_dot=True).lower()


def _type(question: dns.rrset.RRset) -> str:
    """Return the type that is asked for, if it is one of those that are counted apart."""
    text = dns.rdatatype.to_text(question.rdtype)
    return text if text in _COUNTED else "other"


_COUNTED = frozenset(["A", "AAAA", "SRV", "PTR", "CNAME", "TXT", "SOA", "NS", "MX", "ANY"])


def _rrset(owner: dns.name.Name, kind: str, data: Sequence[str]) -> dns.rrset.RRset:
    made = dns.rrset.RRset(owner, dns.rdataclass.IN, dns.rdatatype.from_text(kind))
    made.ttl = TTL_S
    for text in data:
        made.add(_rdata(kind, text))
    return made


@lru_cache(maxsize=65536)
def _rdata(kind: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), text)
