"""Syncs of a few changes, in ipvs mode: what they read and tell of all the rest."""

import errno

import pytest
from fake_node import FakeNode, wanted, web

from kproxy.desired.model import Protocol

HERE, THERE = "10.128.0.1", "10.128.1.1"


def test_what_the_kernel_refuses_is_told_until_it_changes_and_costs_no_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    bad = web("255.255.255.255", HERE)
    backend.sync(wanted(bad))
    monkeypatch.setattr(node.ipvs, "dump", None)
    other = web(HERE, protocol=Protocol.UDP)
    told = backend.sync(wanted(bad, other)).refused
    assert [error.errno for error in told] == [errno.EINVAL]
    assert backend.sync(wanted(web(HERE), other)).refused == ()


def test_a_change_reads_only_the_services_that_change(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(HERE), web(HERE, protocol=Protocol.UDP)))
    for client, reading in ((node.ipvs, "dump"), (node.ipset, "dump"), (node.iptables, "save")):
        monkeypatch.setattr(client, reading, None)
    assert backend.sync(wanted(web(HERE, THERE), web(HERE, protocol=Protocol.UDP))).writes == 1
    assert backend.sync(wanted(web(HERE, THERE))).writes > 0
    assert backend.sync(wanted(web(HERE, THERE))).writes == 0
