"""What ``kproxy explain`` predicts, held against what packets did under kube-proxy.

The records are those of the conformance suite: a checkout of its own, beside this one or where
KPROXY_CONFORMANCE says.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kproxy.api import codec, core, discovery
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Address, Family, NodePorts, Prefix
from kproxy.inspect import flows, lookup
from kproxy.inspect.world import Kind, Node, Origin, Source, World

ROOT = Path(__file__).resolve().parents[2]
SUITE = Path(os.environ.get("KPROXY_CONFORMANCE", ROOT.parent / "shared" / "conformance"))
MODES = ("ipvs", "iptables", "nftables")

pytestmark = pytest.mark.skipif(
    not (SUITE / "expected").is_dir(),
    reason=f"no conformance suite in {SUITE}; the variable KPROXY_CONFORMANCE names it",
)

NODE = {
    Family.IPV4: ("192.168.1.1", "10.20.0.1", "10.128.0.1"),
    Family.IPV6: ("fd00:1::1", "fd00:20::1", "fd00:10:128::1"),
}
PODS = {Family.IPV4: "10.128.0.0/9", Family.IPV6: "fd00:10:128::/48"}
SERVICES = {Family.IPV4: "10.96.0.0/12", Family.IPV6: "fd00:10:96::/112"}
OWN_PODS = {Family.IPV4: "10.128.0.0/24", Family.IPV6: "fd00:10:128::/64"}
SOURCES = {
    "pod-local": ("10.128.0.100", "fd00:10:128::100"),
    "pod-remote": ("10.128.1.100", "fd00:10:128:1::100"),
    "endpoint-pod5": ("10.128.0.5", "fd00:10:128::5"),
    "ext-a": ("198.51.100.7", "2001:db8:1::7"),
    "ext-b": ("192.0.2.7", "2001:db8:2::7"),
    "ext-c": ("192.0.2.9", "2001:db8:2::9"),
    "node": ("192.168.1.1", "fd00:1::1"),
    "node2": ("192.168.1.2", "fd00:1::2"),
}
QUESTION = re.compile(r"(?:\S+ )?(\S+) (tcp|udp|sctp) (\S+) from (\S+)$")


class Record(NamedTuple):
    """What one client saw at one address."""

    name: str
    world: World
    kind: str
    target: str
    client: str
    seen: list[str]


def worlds(mode: str, config: dict[str, Any], objects: list[dict[str, Any]]) -> Iterator[World]:
    """Return what the proxy knew, in both families."""
    for family in Family:
        everything = mode == "nftables" and "nodePortAddresses" not in config
        primary = everything or config.get("nodePortAddresses") == ["primary"]
        localhost = config.get("iptables", {}).get("localhostNodePorts", mode == "iptables")
        settings = NodeSettings(
            family=family,
            node="node1",
            cluster_cidrs=(Prefix(PODS[family]),),
            masquerade_all=config.get("iptables", {}).get("masqueradeAll", False),
        )
        builder = StateBuilder(settings, "zone-a")
        own = tuple(map(Address, NODE[family]))
        builder.set_node_ports(
            NodePorts(
                everywhere=not primary,
                addresses=own[:1] if primary else own,
                localhost=localhost and not primary,
            )
        )
        builder.set_service_cidrs((Prefix(SERVICES[family]),))
        for one in objects:
            if one["kind"] == "Service":
                builder.on_service(None, codec.from_dict(one, core.Service))
            else:
                builder.on_slice(None, codec.from_dict(one, discovery.EndpointSlice))
        node = Node(name="node1", addresses=own, pod_networks=(Prefix(OWN_PODS[family]),))
        yield World(mode=mode, state=builder.build(), node=node)


def records(mode: str) -> Iterator[Record]:
    """Yield everything that was recorded in a mode, except at steps without packets."""
    for path in sorted((SUITE / "expected").glob(f"*.{mode}.json")):
        name = path.name.partition(".")[0]
        scenario = json.loads((SUITE / "scenarios" / f"{name}.json").read_text())
        expected = json.loads(path.read_text())["steps"]
        for step, seen in zip(scenario["steps"], expected, strict=True):
            both = list(worlds(mode, scenario.get("config", {}), step["objects"]))
            for question, answers in seen.get("packets", {}).items():
                found = QUESTION.match(question)
                assert found, question
                kind, protocol, where, client = found.groups()
                world = both["[" in where]
                yield Record(
                    f"{name}: {question}", world, kind, f"{where}/{protocol}", client, answers
                )


def explained(record: Record) -> flows.Prediction:
    """Return what is predicted for a record."""
    target = lookup.parse_target(record.target)
    served = next(iter(lookup.find(record.world, target)), None)
    source = SOURCES[record.client][":" in target.address]
    return flows.predict(record.world, target, served, record.world.source(Address(source)))


NOTHING = {
    flows.Fate.REFUSED: ({"icmp port-unreachable"},),
    flows.Fate.DROPPED: ({"timeout"}, {"error eperm"}),
    flows.Fate.PASSES: ({"the world saw client"},),
    flows.Fate.NODE: ({"refused"}, {"icmp port-unreachable"}, {"service of node1 itself"}),
}


def agrees(record: Record, predicted: flows.Prediction) -> bool:
    """Return whether the prediction says what was seen."""
    seen = {answer for answer in record.seen if not answer.endswith("sticky")}
    if predicted.fate is not flows.Fate.ENDPOINT:
        return seen in NOTHING[predicted.fate]
    if seen <= {"one endpoint"}:  # which one is chance
        return bool(predicted.shares)
    return seen == {answer for share in predicted.shares for answer in [saw(record, share)]}


def saw(record: Record, share: flows.Share) -> str:
    """Return what the record should say of an endpoint."""
    endpoint = share.endpoint
    where = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    client = f"{where}:{endpoint.port} saw client"
    masqueraded = f"{where}:{endpoint.port} saw node1"
    if share.masqueraded:
        # Masqueraded or not: of the node's own addresses either may come out as the same.
        return client if record.client == "node" and client in record.seen else masqueraded
    # Its answer goes past node1.
    past = record.client != "node" and not share.endpoint.local and client not in record.seen
    return "timeout" if past else client


@pytest.mark.parametrize("mode", MODES)
def test_predictions_are_what_was_recorded(mode: str) -> None:
    different, count = [], 0
    for record in records(mode):
        count += 1
        predicted = explained(record)
        if not agrees(record, predicted):
            shares = [(str(one.endpoint.address), one.masqueraded) for one in predicted.shares]
            different.append(f"{record.name}: {record.seen}, not {predicted.fate} {shares}")
    assert different == []
    assert count > 1000


def test_kinds_are_those_recorded() -> None:
    kinds = {"clusterIP": Kind.CLUSTER_IP, "externalIP": Kind.EXTERNAL_IP}
    kinds |= {"loadBalancer": Kind.LOAD_BALANCER, "nodePort": Kind.NODE_PORT}
    seen = set()
    for record in records("iptables"):
        target = lookup.parse_target(record.target)
        for served in lookup.find(record.world, target):
            assert kinds[record.kind] is flows.kind_of(served.service, target)
            seen.add(record.kind)
    assert seen == set(kinds)


def test_sources_are_those_recorded() -> None:
    world = next(worlds("ipvs", {}, []))
    origins = {name: world.source(Address(four)).origin for name, (four, _) in SOURCES.items()}
    assert {name for name, origin in origins.items() if origin is Origin.POD} == {
        "pod-local", "pod-remote", "endpoint-pod5",
    }  # fmt: skip
    assert world.source(Address("10.128.1.100")) == Source(
        origin=Origin.POD, address=Address("10.128.1.100"), here=False
    )
    assert origins["node"] is Origin.NODE
    assert origins["node2"] is Origin.OUTSIDE
