"""The table of links, what their cluster is made of, and what etcd's members write."""

import time
from pathlib import Path
from typing import Any

import pytest

from kproxy import errors
from kproxy.lab import generators
from kproxy.lab.chain import etcdlog, probes, settings, shop, stage, table
from kproxy.lab.clusterfile import Store
from kproxy.lab.layout import Layout
from kproxy.lab.site import Site


def test_every_link_has_words_a_group_and_a_fault_of_its_own() -> None:
    assert len({link.run for link in table.LINKS.values()}) == len(table.LINKS)
    for name, link in table.LINKS.items():
        assert link.name == name
        assert link.title
        assert link.summary.endswith(".")
        assert link.guarantor or link is table.BASELINE


def test_groups_hold_every_link_once_and_do_not_depend_on_the_others() -> None:
    everything = table.groups(tuple(table.LINKS))
    assert sorted(name for group in everything for name in group) == sorted(table.LINKS)
    for group in everything:
        for name in group:
            assert table.groups((name,)) == [(name,)]


def test_a_dead_node_is_the_last_of_its_group() -> None:
    (group,) = [group for group in table.groups(tuple(table.LINKS)) if "node" in group]
    assert group[-1] == "node"


def test_an_unknown_link_is_named_with_those_there_are() -> None:
    with pytest.raises(errors.UsageError, match="etcd-leader"):
        table.by_name("moon")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"links": ()}, "nothing to break"),
        ({"links": ("moon",)}, "no such link"),
        ({"mode": "ebpf"}, "--mode ebpf"),
        ({"trials": 0}, "--trials 0"),
        ({"nodes": 1}, "--nodes 1"),
        ({"members": 2}, "--members 2"),
        ({"rates": generators.Rates(udp_pps=0)}, "--rate 0"),
    ],
)
def test_what_cannot_be_is_told_by_its_option(change: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.UsageError, match=words):
        settings.Parameters(**change).check()


def test_without_etcd_its_links_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "has_etcd", lambda: False)
    able = settings.able(settings.Parameters(), named=False)
    assert set(able.left_out) == {"etcd-member", "etcd-leader", "etcd-majority"}
    assert not set(able.links) & set(able.left_out)
    assert able.file().control_plane.store is Store.SQLITE
    with pytest.raises(errors.UsageError, match="not installed"):
        settings.able(settings.Parameters(links=("etcd-leader",)), named=True)


def test_vantage_points_have_places_and_numbers_of_their_own() -> None:
    site = Site(settings.Parameters(nodes=3).file())
    found = shop.vantages(site, "node1")
    assert list(found) == [shop.HIT, shop.OTHER, shop.BEYOND]
    assert found[shop.HIT].gateway == "node1"
    assert found[shop.OTHER].gateway == "node2"
    assert len({one.number for one in found.values()}) == len(found)
    topology = site.topology()
    ends = [end for link in topology.links for end in (link.a, link.b)]
    ends += [end for segment in topology.segments for end in segment.interfaces]
    interfaces = {(end.host, end.name) for end in ends}
    assert {(one.gateway, one.gateway_interface) for one in found.values()} <= interfaces


def test_careless_backends_neither_tell_nor_wait() -> None:
    files = Layout(Path("lab"))
    for careful in (True, False):
        spec = shop.deployment(files, careful=careful)["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert ("readinessProbe" in container) is careful
        assert ("lifecycle" in container) is careful


def test_traffic_goes_to_the_balancer_from_outside() -> None:
    service = {
        "metadata": {"name": "s"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "p", "port": 1, "protocol": "UDP"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    }
    assert [one.address for one in shop.targets(service, outside=False)] == ["10.96.0.9"]
    assert [one.address for one in shop.targets(service, outside=True)] == ["203.0.113.1"]
    assert shop.balanced_address({}) == ""


def test_a_pod_is_unlisted_when_no_slice_sends_to_it() -> None:
    def piece(version: str, ready: bool) -> dict[str, object]:
        endpoint = {"targetRef": {"name": "p"}, "conditions": {"ready": ready}}
        return {"metadata": {"resourceVersion": version}, "endpoints": [endpoint]}

    assert stage.slices_version([piece("7", True)], "p") == -1
    assert stage.slices_version([piece("7", False), piece("5", False)], "p") == 7
    assert stage.slices_version([piece("7", True)], "other") == 7


def test_a_pod_to_be_made_is_pinned_to_each_node() -> None:
    made = [one for one in probes.manifests(["a", "b"]) if one["kind"] == "Deployment"]
    pins = [one["spec"]["template"]["spec"]["nodeSelector"] for one in made]
    assert pins == [{"kubernetes.io/hostname": "a"}, {"kubernetes.io/hostname": "b"}]


def test_elections_are_read_from_what_members_write(tmp_path: Path) -> None:
    offset = time.time_ns() - time.monotonic_ns()
    at = time.monotonic_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime((at + offset) / 1e9))
    stamp += f".{(at + offset) // 1_000_000 % 1000:03}Z"
    (tmp_path / "etcd1-etcd.txt").write_text(
        f'{{"ts":"{stamp}","msg":"6f is starting a new election at term 1"}}\n'
        f'{{"ts":"{stamp}","msg":"6f became leader at term 2"}}\n'
        f'{{"ts":"{stamp}","msg":"something else"}}\nno JSON\n{{"ts":\n'
    )
    (tmp_path / "etcd2-etcd.txt").write_text(
        '{"ts":"2001-01-01T00:00:00.000Z","msg":"6f became leader at term 1"}\n'
    )
    found = etcdlog.turns(tmp_path, ("etcd1", "etcd2"), since_ns=at - 5_000_000)
    assert [(one.member, one.elected) for one in found] == [("etcd1", False), ("etcd1", True)]
    assert abs(found[0].ns - at) < 2_000_000
