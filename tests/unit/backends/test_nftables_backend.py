"""nftables mode on a fake kernel: one transaction with what differs, whatever came before."""

import ipaddress
from pathlib import Path

import msgspec
import pytest
from fake_node import FakeNode, wanted, web
from nftables_node import A, B, fresh, written

from kproxy.backends.base import Options
from kproxy.backends.nftables import layout
from kproxy.backends.nftables.render import Renderer
from kproxy.desired.model import Address, Family, NodePorts, Prefix, Protocol, State
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.inet import Protocol as Transport
from kproxy.kernel.nft.expressions import ChangeSet
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddSet,
    AddTable,
    BaseChain,
    DelElements,
    DelTable,
    Field,
    Hook,
    SetSpec,
)


def test_one_changed_endpoint_writes_only_its_services_elements() -> None:
    many = [
        msgspec.structs.replace(
            one,
            service=msgspec.structs.replace(
                one.service,
                name=one.service.name._replace(name=f"s{number}"),
                cluster_ip=Address(f"10.96.1.{number}"),
            ),
        )
        for number, one in enumerate([web(A, B)] * 20)
    ]
    node = FakeNode()
    backend = node.backend("nftables")
    backend.sync(wanted(*many))
    changed = msgspec.structs.replace(
        many[0], cluster=web(A, "10.128.0.3").cluster, known=web(A, "10.128.0.3").known
    )
    result = backend.sync(wanted(changed, *many[1:]))
    assert result.writes == 2
    key = b"\x06\0\0\0\x0a\x60\x01\0\0\x50\0\0\1\0\0\0"
    spec = layout.set_specs(Family.IPV4)[layout.ENDPOINTS]
    new = b"\x0a\x80\0\3\x1f\x90\0\0"
    assert written(node) == [
        DelElements(layout.ENDPOINTS, spec, [key]),
        AddElements(layout.ENDPOINTS, spec, {key: new}),
    ]


def test_who_claims_what_others_have_makes_no_change_dearer() -> None:
    """Only the services that want the same are looked at again, not the whole table."""
    both = [
        msgspec.structs.replace(
            one,
            service=msgspec.structs.replace(
                one.service,
                name=one.service.name._replace(name=f"s{number}"),
                cluster_ip=Address(f"10.96.1.{number}"),
                external_ips=(Address("203.0.113.1"),) if number < 3 else (),
            ),
        )
        for number, one in enumerate([web(A, B)] * 9, start=1)
    ]
    renderer = Renderer()
    renderer.render(wanted(*both))
    told = [str(one) for one in renderer.invalid]
    assert [one.partition(":")[0] for one in told] == ["Service demo/s2"]
    less = msgspec.structs.replace(both[8], cluster=both[8].cluster[:1])
    delta = renderer.render(wanted(*both[:8], less))
    assert delta is not None
    assert {name: len(one) for name, one in delta.elements.items()} == {
        layout.ENDPOINTS: 1,
        layout.SERVICE_IPS: 1,
    }
    assert [str(one) for one in renderer.invalid] == told
    # Who had it goes: the other one gets it.
    delta = renderer.render(wanted(*both[1:8], less))
    assert delta is not None
    assert layout.SERVICE_IPS in delta.elements
    assert renderer.invalid == ()
    again = Renderer()
    again.render(wanted(*both[1:8], less))
    assert renderer.tables == again.tables


def test_a_restarted_proxy_reads_once_and_writes_nothing() -> None:
    node, state = FakeNode(), wanted(web(A, B))
    node.backend("nftables").sync(state)
    table = node.nft[Family.IPV4]
    table.written.clear()
    table.reads = 0
    backend = node.backend("nftables")
    backend.reread()
    assert backend.sync(state).writes == 0
    assert (table.reads, table.written) == (1, [])


def test_a_full_sync_reads_only_what_others_may_have_changed() -> None:
    node, state = FakeNode(), wanted(web(A, B))
    table = node.nft[Family.IPV4]
    backend = node.backend("nftables")
    backend.reread()
    backend.sync(state)
    table.reads = 0
    # The first reading may have lacked something: the kernel may have been busy with its own.
    backend.reread()
    assert table.reads == 1
    assert backend.sync(state).writes == 0
    table.reads = 0
    backend.reread()
    assert backend.sync(wanted(web(A))).writes > 0
    backend.reread()
    assert table.reads == 0
    table.change_elsewhere()
    backend.reread()
    assert table.reads == 1
    assert backend.sync(wanted(web(A))).writes == 0


def test_what_others_change_during_a_sync_is_not_overlooked() -> None:
    node = FakeNode()
    table = node.nft[Family.IPV4]
    backend = node.backend("nftables")
    backend.reread()
    table.change_elsewhere()
    backend.sync(wanted(web(A)))
    table.reads = 0
    backend.reread()
    assert table.reads == 1


def test_the_table_of_another_proxy_is_replaced_in_one_transaction() -> None:
    """kube-proxy's own table has this name, and is made otherwise."""
    node, state = FakeNode(), wanted(web(A, B))
    table = node.nft[Family.IPV4]
    table.run(
        [
            AddTable(),
            AddSet(
                "service-ips", SetSpec((Field.IPV4, Field.PROTOCOL, Field.PORT), verdicts=True)
            ),
            AddChain("filter-forward", BaseChain("filter", Hook.FORWARD, -110)),
        ]
    )
    table.written.clear()
    assert node.backend("nftables").sync(state).failures == ()
    assert len(table.written) == 1
    assert written(node)[:2] == [DelTable(), AddTable()]
    assert node.contents()["nft"] == fresh(state).contents()["nft"]


def test_a_changed_address_of_the_node_touches_no_service() -> None:
    node = FakeNode()
    backend = node.backend("nftables")
    ports = NodePorts(everywhere=False, addresses=(Address("192.168.1.1"),))
    state = msgspec.structs.replace(wanted(web(A, B)), node_ports=ports)
    backend.sync(state)
    moved = msgspec.structs.replace(ports, addresses=(Address("192.168.1.9"),))
    backend.sync(msgspec.structs.replace(state, node_ports=moved))
    spec = layout.set_specs(Family.IPV4)[layout.NODEPORT_IPS]
    assert written(node) == [
        DelElements(layout.NODEPORT_IPS, spec, [b"\xc0\xa8\x01\x01"]),
        AddElements(layout.NODEPORT_IPS, spec, {b"\xc0\xa8\x01\x09": None}),
    ]


def test_cleanup_removes_the_table_and_absent_is_fine() -> None:
    node = FakeNode()
    backend = node.backend("nftables")
    assert not backend.left_over()
    assert backend.cleanup() == 0
    backend.sync(wanted(web(A)))
    assert backend.left_over()
    assert backend.cleanup() > 0
    assert not backend.left_over()
    assert backend.sync(wanted(web(A))).writes > 0
    assert backend.left_over()


def test_a_missing_feature_is_told() -> None:
    node = FakeNode()
    assert node.backend("nftables").supported() is None
    node.nft[Family.IPV4].missing = "this kernel's nftables lacks: numgen"
    assert node.backend("nftables").supported() == "this kernel's nftables lacks: numgen"


@pytest.mark.parametrize(("clean_last", "left"), [(False, 1), (True, 0)])
def test_flows_of_a_last_endpoint_stay_unless_asked_otherwise(clean_last: bool, left: int) -> None:
    node = FakeNode()
    backend = node.backend("nftables", Options(clean_last=clean_last))
    service = web(A, protocol=Protocol.UDP)
    backend.sync(wanted(service))
    node.conntrack.table.append(udp_flow(A))
    none = msgspec.structs.replace(service, cluster=(), known=(), anywhere=False)
    backend.sync(wanted(none))
    assert len(node.conntrack.table) == left


def udp_flow(endpoint: str) -> Flow:
    pod, source, to = map(ipaddress.ip_address, (endpoint, "10.0.0.9", "10.96.0.10"))
    return Flow(Transport.UDP, source, 4444, to, 80, pod, 8080, source, 4444)


def test_ipv6_forwarding_waits_for_a_service() -> None:
    """A node that forwards does not listen to router advertisements any more."""
    node = FakeNode()
    backend = node.backend("nftables", family=Family.IPV6)
    empty = State(family=Family.IPV6, services={}, service_cidrs=(Prefix("fd00:10:96::/112"),))
    backend.sync(empty)
    assert node.sysctl.values["net/ipv6/conf/all/forwarding"] == "0"
    assert node.nft[Family.IPV6].exists()


def test_more_endpoints_than_are_prepared_for() -> None:
    node = FakeNode()
    pods = [f"10.128.{n // 250}.{n % 250 + 1}" for n in range(300)]
    assert node.backend("nftables").sync(wanted(web(*pods))).failures == ()
    table = node.nft[Family.IPV4].read()
    assert table is not None
    assert len(table.elements[layout.ENDPOINTS]) == 300
    assert "pick-300" in table.chains


def test_the_readme_names_every_set() -> None:
    readme = Path(layout.__file__).with_name("README.md").read_text()
    assert [name for name in layout.set_specs(Family.IPV4) if f"`{name}`" not in readme] == []


def test_absurd_time_outs_of_affinity_do_not_make_the_kernel_refuse_everything() -> None:
    for seconds, wanted_ms in ((0, 1000), (10**12, 86_400_000)):
        one = web(A)
        sticky = msgspec.structs.replace(
            one, service=msgspec.structs.replace(one.service, affinity_seconds=seconds)
        )
        node = FakeNode()
        node.backend("nftables").sync(wanted(sticky))
        table = node.nft[Family.IPV4].read()
        assert table is not None
        rules = table.chains["sticky-tcp-10.96.0.10-80"].rules
        times = {one.timeout_ms for rule in rules for one in rule if isinstance(one, ChangeSet)}
        assert times == {wanted_ms}
