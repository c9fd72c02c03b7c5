"""Probing a kernel tells what it does, and leaves nothing behind."""

from pathlib import Path

import pytest

from netns.kernels import probe

pytestmark = [pytest.mark.kernel, pytest.mark.needs_tool("ip", "iptables-legacy")]


def devices() -> list[str]:
    return sorted(path.name for path in Path("/sys/class/net").iterdir())


def test_devices_are_tried_in_a_namespace_that_vanishes() -> None:
    before = devices()
    found = probe.probe(("veth", "bridge"))
    assert found == {"veth": "", "bridge": ""}
    assert devices() == before


def test_rules_are_tried_in_a_namespace_that_vanishes() -> None:
    # Twice, in two fresh namespaces: the second finds nothing of the first.
    assert probe.probe(("iptables-legacy",)) == probe.probe(("iptables-legacy",))


def test_what_fails_in_the_namespace_is_told() -> None:
    def work() -> dict[str, str]:
        return {"answer": probe.attempt([["ip", "link", "show", "no-such-device"]])}

    assert "no-such-device" in probe.in_namespace(work)["answer"]


def test_a_probe_that_dies_is_no_answer() -> None:
    def work() -> dict[str, str]:
        raise SystemExit(1)

    assert probe.NAMESPACE in probe.in_namespace(work)
