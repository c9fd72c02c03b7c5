"""Questions as bytes, answers as bytes: what clients and broken clients get."""

from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kproxy.controlplane.naming import answers as answers_module
from kproxy.controlplane.naming.answers import Answers, Outcome, PodNames, Rules
from kproxy.controlplane.naming.records import Record, Type
from kproxy.controlplane.naming.zone import Zone

WEB = "web.shop.svc.cluster.local"
MANY = 100


def made(*, ready: bool = True, **rules: Any) -> Answers:
    zone = Zone()
    shop = "shop.svc.cluster.local"
    found = [
        Record(WEB, Type.A, "10.96.0.7"),
        Record(f"_http._tcp.{WEB}", Type.SRV, f"0 100 80 {WEB}."),
        Record("7.0.96.10.in-addr.arpa", Type.PTR, f"{WEB}."),
        Record(f"out.{shop}", Type.CNAME, "bank.example.org."),
        Record(f"in.{shop}", Type.CNAME, f"{WEB}."),
        Record(f"gone.{shop}", Type.CNAME, f"nobody.{shop}."),
        Record(f"circle.{shop}", Type.CNAME, f"circle.{shop}."),
    ]
    found += [Record(f"many.{shop}", Type.A, f"10.244.1.{number}") for number in range(MANY)]
    found += [
        Record(f"_x._tcp.many.{shop}", Type.SRV, f"0 1 80 {number}.many.{shop}.")
        for number in range(15)
    ]
    found += [Record(f"{n}.many.{shop}", Type.A, f"10.244.1.{n}") for n in range(15)]
    zone.replace("all", found)
    return Answers(zone, Rules(**rules), lambda: ready)


def ask(
    name: str, kind: str = "A", *, stream: bool = False, answers: Answers | None = None, **how: Any
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **how)
    outcome = (answers or made()).answer(query.to_wire(), stream=stream)
    assert outcome.wire is not None
    response = dns.message.from_wire(outcome.wire)
    assert query.is_response(response)
    assert dns.rcode.to_text(response.rcode()) == outcome.rcode
    return response


def data(response: dns.message.Message) -> list[str]:
    return [f"{rdata.rdtype.name} {rdata}" for rrset in response.answer for rdata in rrset]


def test_an_address() -> None:
    response = ask(WEB)
    assert data(response) == ["A 10.96.0.7"]
    assert response.answer[0].ttl == 5
    assert response.flags & dns.flags.AA
    assert not response.flags & dns.flags.RA


def test_letters_large_or_small_are_the_same_and_come_back_as_sent() -> None:
    response = ask("WEB.Shop.svc.CLUSTER.local")
    assert data(response) == ["A 10.96.0.7"]
    assert response.question[0].name.to_text() == "WEB.Shop.svc.CLUSTER.local."
    assert response.answer[0].name.to_text() == "WEB.Shop.svc.CLUSTER.local."


def test_a_service_record_brings_the_address() -> None:
    response = ask(f"_http._tcp.{WEB}", "SRV")
    assert data(response) == [f"SRV 0 100 80 {WEB}."]
    assert [rrset.to_text() for rrset in response.additional] == [f"{WEB}. 5 IN A 10.96.0.7"]


def test_the_name_of_an_address() -> None:
    assert data(ask("7.0.96.10.in-addr.arpa", "PTR")) == [f"PTR {WEB}."]
    unknown = ask("8.0.96.10.in-addr.arpa", "PTR")
    assert unknown.rcode() == dns.rcode.NXDOMAIN
    assert unknown.authority[0].name.to_text() == "in-addr.arpa."


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        ("nobody.shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        (WEB, "AAAA", dns.rcode.NOERROR),
        (WEB, "TYPE65280", dns.rcode.NOERROR),
        ("shop.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("cluster.local", "A", dns.rcode.NOERROR),
    ],
)
def test_what_there_is_not(name: str, kind: str, rcode: dns.rcode.Rcode) -> None:
    response = ask(name, kind)
    assert response.rcode() == rcode
    assert data(response) == []
    (authority,) = response.authority
    assert authority.rdtype == dns.rdatatype.SOA
    assert authority[0].minimum == authority.ttl == 5


def test_the_zone_itself() -> None:
    assert ask("cluster.local", "SOA").answer[0].rdtype == dns.rdatatype.SOA
    assert data(ask("cluster.local", "NS")) == ["NS ns.dns.cluster.local."]


def test_any_is_answered_with_one_set() -> None:
    assert data(ask(WEB, "ANY")) == ["A 10.96.0.7"]


@pytest.mark.parametrize("name", ["example.org", "local", ".", "xcluster.local"])
def test_other_names_are_refused_where_nobody_else_is_asked(name: str) -> None:
    response = ask(name)
    assert response.rcode() == dns.rcode.REFUSED
    assert not response.flags & dns.flags.AA


def test_other_names_are_asked_elsewhere_where_that_is_wanted() -> None:
    answers = made(forwards=True)
    for name in ("example.org", "9.9.9.9.in-addr.arpa"):
        wire = dns.message.make_query(name, "A").to_wire()
        assert answers.answer(wire, stream=False).ask == wire
    assert ask(WEB, answers=answers).flags & dns.flags.RA


def test_an_alias_of_ours_brings_the_address() -> None:
    response = ask("in.shop.svc.cluster.local")
    assert data(response) == [f"CNAME {WEB}.", "A 10.96.0.7"]
    assert data(ask("in.shop.svc.cluster.local", "CNAME")) == [f"CNAME {WEB}."]


def test_an_alias_of_nobody_does_not_exist() -> None:
    response = ask("gone.shop.svc.cluster.local")
    assert response.rcode() == dns.rcode.NXDOMAIN
    assert data(response) == ["CNAME nobody.shop.svc.cluster.local."]


def test_an_alias_of_itself_comes_to_an_end() -> None:
    assert data(ask("circle.shop.svc.cluster.local"))[0].startswith("CNAME circle")


def test_an_alias_elsewhere_is_all_that_is_known() -> None:
    assert data(ask("out.shop.svc.cluster.local")) == ["CNAME bank.example.org."]


def test_an_alias_elsewhere_is_completed_by_a_resolver() -> None:
    answers = made(forwards=True)
    query = dns.message.make_query("out.shop.svc.cluster.local", "A")
    outcome = answers.answer(query.to_wire(), stream=False)
    assert outcome.ask is not None
    assert outcome.begun is not None
    asked = dns.message.from_wire(outcome.ask)
    assert asked.question[0].to_text() == "bank.example.org. IN A"
    told = dns.message.make_response(asked)
    told.answer.append(dns.rrset.from_text("bank.example.org.", 60, "IN", "A", "192.0.2.1"))
    done = answers.complete(outcome.begun, told.to_wire(), stream=False)
    assert done.wire is not None
    response = dns.message.from_wire(done.wire)
    assert query.is_response(response)
    assert data(response) == ["CNAME bank.example.org.", "A 192.0.2.1"]


def test_a_resolver_that_talks_nonsense_is_a_failure() -> None:
    answers = made(forwards=True)
    query = dns.message.make_query("out.shop.svc.cluster.local", "A")
    outcome = answers.answer(query.to_wire(), stream=False)
    assert outcome.begun is not None
    assert answers.complete(outcome.begun, b"nonsense", stream=False).rcode == "SERVFAIL"


def test_a_large_answer_is_cut_and_says_so() -> None:
    """With AA: without it, glibc never asks again over TCP."""
    name = "many.shop.svc.cluster.local"
    for how in ({}, {"use_edns": 0, "payload": 4096}, {"use_edns": 0, "payload": 100}):
        response = ask(name, **how)
        assert response.flags & dns.flags.TC
        assert response.flags & dns.flags.AA
        assert data(response) == []
    whole = ask(name, stream=True)
    assert len(data(whole)) == MANY
    assert not whole.flags & dns.flags.TC


def test_addresses_that_nobody_asked_for_are_left_out_before_an_answer_is_cut() -> None:
    response = ask("_x._tcp.many.shop.svc.cluster.local", "SRV", use_edns=0, payload=1232)
    assert len(data(response)) == 15
    assert not response.flags & dns.flags.TC
    small = ask("_x._tcp.many.shop.svc.cluster.local", "SRV")
    assert small.flags & dns.flags.TC or not small.additional


def test_each_answer_begins_with_another_address() -> None:
    answers = made()
    first = {data(ask("many.shop.svc.cluster.local", stream=True, answers=answers))[0]}
    for _ in range(MANY - 1):
        first.add(data(ask("many.shop.svc.cluster.local", stream=True, answers=answers))[0])
    assert len(first) == MANY


def test_extensions_are_answered_with_extensions_only() -> None:
    assert ask(WEB).edns == -1
    response = ask(WEB, use_edns=0, options=[dns.edns.GenericOption(65001, b"x")])
    assert response.edns == 0
    assert response.payload == 1232


def test_extensions_of_the_future_are_refused() -> None:
    response = ask(WEB, use_edns=1)
    assert response.rcode() == dns.rcode.BADVERS
    assert response.edns == 0


def test_before_everything_is_listed_nothing_is_denied() -> None:
    response = ask("new.shop.svc.cluster.local", answers=made(ready=False))
    assert response.rcode() == dns.rcode.SERVFAIL


@pytest.mark.parametrize(
    ("mode", "name", "rcode"),
    [
        (PodNames.INSECURE, "10-244-1-2.shop.pod.cluster.local", dns.rcode.NOERROR),
        (PodNames.INSECURE, "fd00-244--7.shop.pod.cluster.local", dns.rcode.NOERROR),
        (PodNames.INSECURE, "web.shop.pod.cluster.local", dns.rcode.NXDOMAIN),
        (PodNames.INSECURE, "x.10-244-1-2.shop.pod.cluster.local", dns.rcode.NXDOMAIN),
        (PodNames.DISABLED, "10-244-1-2.shop.pod.cluster.local", dns.rcode.NXDOMAIN),
        (PodNames.VERIFIED, "10-244-1-2.shop.pod.cluster.local", dns.rcode.NXDOMAIN),
    ],
)
def test_names_of_pods(mode: PodNames, name: str, rcode: dns.rcode.Rcode) -> None:
    kind = "AAAA" if "fd00" in name else "A"
    response = ask(name, kind, answers=made(pod_names=mode))
    assert response.rcode() == rcode
    assert bool(response.answer) is (rcode == dns.rcode.NOERROR)


def raw(change: Any = None, **how: Any) -> bytes:
    query = dns.message.make_query(WEB, "A", **how)
    if change:
        change(query)
    return query.to_wire()


def rcode_of(outcome: Outcome, sent: bytes) -> int:
    assert outcome.wire is not None
    assert outcome.wire[:2] == sent[:2]
    assert outcome.wire[2] & 0x80
    return outcome.wire[3] & 0xF


def test_what_is_no_question_gets_no_answer() -> None:
    response = dns.message.make_response(dns.message.from_wire(raw())).to_wire()
    for sent in (b"", b"short", response):
        assert made().answer(sent, stream=False).wire is None


def test_updates_and_other_operations_are_not_implemented() -> None:
    for opcode in (1, 2, 4, 5, 9):
        sent = bytearray(raw())
        sent[2] |= opcode << 3
        outcome = made().answer(bytes(sent), stream=False)
        assert rcode_of(outcome, bytes(sent)) == dns.rcode.NOTIMP


@pytest.mark.parametrize("questions", [0, 2])
def test_there_is_one_question(questions: int) -> None:
    def change(query: dns.message.Message) -> None:
        other = dns.message.make_query(f"x.{WEB}", "A").question
        query.question[:] = [*query.question, *other][:questions]

    sent = raw(change)
    assert rcode_of(made().answer(sent, stream=False), sent) == dns.rcode.FORMERR


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_the_zone_is_not_handed_over(kind: str) -> None:
    sent = dns.message.make_query("cluster.local", kind).to_wire()
    assert rcode_of(made().answer(sent, stream=True), sent) == dns.rcode.REFUSED


def test_other_classes_are_refused() -> None:
    sent = dns.message.make_query("version.bind", "TXT", rdclass=dns.rdataclass.CH).to_wire()
    assert rcode_of(made().answer(sent, stream=False), sent) == dns.rcode.REFUSED


QUESTION = raw(use_edns=0)


@given(st.binary(max_size=80))
@example(b"\0" * 12)
@example(b"\0" * 4 + b"\xff" * 8)
@example(b"\0\0\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01")
def test_noise_never_stops_it(noise: bytes) -> None:
    check(noise)


@given(st.integers(0, len(QUESTION)), st.binary(min_size=1, max_size=6))
def test_nor_does_a_question_with_a_hole(place: int, other: bytes) -> None:
    check(QUESTION[:place] + other + QUESTION[place + len(other) :])
    check(QUESTION[:place])


def check(sent: bytes) -> None:
    for stream in (False, True):
        outcome = made().answer(sent, stream=stream)
        if outcome.wire is not None:
            assert outcome.wire[:2] == sent[:2]
            dns.message.from_wire(outcome.wire)


def test_the_same_question_again_has_the_same_answer_until_the_zone_changes() -> None:
    zone, ready = Zone(), [False]
    answers = Answers(zone, Rules(), lambda: ready[0])
    name = "new.shop.svc.cluster.local"

    def now() -> tuple[str, list[str]]:
        response = ask(name, answers=answers)
        return dns.rcode.to_text(response.rcode()), data(response)

    assert now() == now() == ("SERVFAIL", [])
    ready[0] = True
    assert now() == now() == ("NXDOMAIN", [])
    zone.replace("new", [Record(name, Type.A, "10.96.0.9")])
    assert now() == now() == ("NOERROR", ["A 10.96.0.9"])
    assert ask(name, use_edns=0, answers=answers).edns == 0
    assert ask(name, answers=answers).edns == -1


def test_only_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "MOST_KNOWN", 3)
    answers = made()
    for number in range(20):
        ask(f"{number}.shop.svc.cluster.local", answers=answers)
        assert len(answers._known) <= 3
