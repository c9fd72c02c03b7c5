"""``kproxy explain`` on files of objects and a pretended kernel."""

from pathlib import Path

import pytest
from inspected_files import FOREIGN, MISSING, PretendedBackend, answer, backend, file, run

from kproxy.backends.base import Deviation, Difference
from kproxy.desired.model import Protocol, ServicePortName

__all__ = ["backend", "file"]


def test_explain(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    backend: type[PretendedBackend],
) -> None:
    backend.in_use = frozenset({"ipvs"})
    backend.found = (MISSING, FOREIGN)
    words = ("explain", "10.96.0.10:80", "--objects", file, "--node", "node1")
    code, found = answer(monkeypatch, capsys, *words, "--from", "10.128.0.5")
    assert (code, found["mode"], found["found"]) == (0, "ipvs", True)
    (web,) = found["services"]
    assert web["kind"] == "ClusterIP"
    (packet,) = web["packets"]
    assert (packet["origin"], packet["fate"]) == ("pod", "endpoint")
    assert [one["probability"] for one in packet["endpoints"]] == [0.5, 0.5]
    assert [one["masqueraded"] for one in packet["endpoints"]] == [True, False]
    assert web["kernel"]["agrees"] is False
    assert [one["name"] for one in web["kernel"]["differences"]] == ["tcp 10.96.0.10:80"]


def test_what_all_services_need_concerns_each(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    backend: type[PretendedBackend],
) -> None:
    hook = Difference(deviation=Deviation.MISSING, kind="rule", name="nat PREROUTING", want="jump")
    stray = Difference(deviation=Deviation.UNEXPECTED, kind="rule", name="nat KUBE-X", have="DROP")
    other = ServicePortName("demo", "other", "http", Protocol.TCP)
    others = Difference(deviation=Deviation.MISSING, kind="rule", name="nat X", service=other)
    mine, yours = (
        Difference(deviation=Deviation.MISSING, kind="address", name=f"kube-ipvs0 {address}")
        for address in ("10.96.0.10", "10.96.0.99")
    )
    backend.found = (hook, others, stray, FOREIGN, yours, mine, MISSING)
    words = ("explain", "10.96.0.10:80", "--objects", file, "--node", "node1", "--mode", "ipvs")
    (web,) = answer(monkeypatch, capsys, *words)[1]["services"]
    found = [one["name"] for one in web["kernel"]["differences"]]
    assert found == [
        "tcp 10.96.0.10:80",
        "nat PREROUTING",
        "nat KUBE-X",
        "kube-ipvs0 10.96.0.10",
    ]
    backend.found = (hook,)
    assert run(monkeypatch, *words) == 0
    assert "Kernel: differs, 1 difference: 1 missing" in capsys.readouterr().out


def test_explain_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    words = ("--objects", file, "--node", "node1", "--mode", "ipvs", "--", "--cluster-cidr")
    assert run(monkeypatch, "explain", "10.96.0.10:80", *words, "10.128.0.0/9") == 0
    assert capsys.readouterr().out.splitlines() == [
        "10.96.0.10:80/TCP is the ClusterIP of demo/web:http (mode ipvs, node node1, zone zone-a)",
        "",
        "Endpoints",
        "  10.128.0.5:8080  this node  used",
        "  10.128.1.6:8080  elsewhere  used",
        "  10.128.1.7:8080  elsewhere  not used: not ready",
        "",
        "First packet of a connection",
        "  from a pod of this node: → 10.128.0.5:8080 50% or 10.128.1.6:8080 50% (source kept)",
        "      not masqueraded: the rules take the client for a pod",
        "  from this node: → 10.128.0.5:8080 50% or 10.128.1.6:8080 50% (masqueraded)",
        "      masqueraded: in ipvs mode the node sends from the ClusterIP itself",
        "  from outside: → 10.128.0.5:8080 50% or 10.128.1.6:8080 50% (masqueraded)",
        "      masqueraded: the client is no pod, and the answer must come back to this node",
        "",
        "Chosen by IPVS, each in turn (scheduler rr); new connections of the same client address "
        "go there, too, until none has come for 10800 s (sessionAffinity ClientIP).",
        "Kernel: holds what is wanted.",
    ]


def test_an_unknown_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    words = ("--objects", file, "--node", "node1", "--mode")
    code, found = answer(monkeypatch, capsys, "explain", "10.96.0.10:8080", *words, "nftables")
    assert (code, found["found"], found["in_service_network"]) == (1, False, True)
    assert {one["fate"] for one in found["packets"]} == {"refused"}
    assert found["near"] == ["10.96.0.10:80/TCP is demo/web:http"]
    assert run(monkeypatch, "explain", "10.96.7.7:80", *words, "iptables") == 1
    said = capsys.readouterr().out
    assert "belongs to no service" in said
    assert "the address is in a service network" in said
    assert "passes as it came" in said
