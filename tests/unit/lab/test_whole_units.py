"""What runs where in a whole cluster, with which files and options."""

import stat
from pathlib import Path

import msgspec
import pytest

from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.controlplane.access import kubeconfigs
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole import addons, init, units
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.roles import Role


def places(tmp_path: Path, text: str = "") -> Places:
    return Places(tmp_path / "scratch", Site(clusterfile.parse(text, "lab.yaml")))


def words(found: dict[str, list[init.Unit]], host: str, role: Role) -> list[str]:
    (unit,) = [unit for unit in found[host] if unit.name == role]
    return unit.command


def test_a_small_cluster_has_one_of_each_and_a_kubelet_on_every_node(tmp_path: Path) -> None:
    found = units.plan(places(tmp_path))
    assert {
        host: [unit.name for unit in some] for host, some in found.items() if host != "edge"
    } == {
        "control1": ["apiserver", "manager", "scheduler"],
        "node1": ["kubelet"],
        "node2": ["kubelet"],
    }


def test_replicas_and_etcd_members_have_hosts_of_their_own_and_know_of_each_other(
    tmp_path: Path,
) -> None:
    text = "controlPlane: {replicas: 3, store: etcd, etcdMembers: 3}"
    found = units.plan(places(tmp_path, text))
    assert [host for host in found if host != "edge"] == [
        "etcd1", "etcd2", "etcd3", "control1", "control2", "control3", "node1", "node2",
    ]  # fmt: skip
    for number in (1, 2, 3):
        server = words(found, f"control{number}", Role.API_SERVER)
        assert f"--advertise-address=192.168.50.20{number}" in server
        (store,) = [word for word in server if word.startswith("--store=etcd:")]
        assert store.count("http://192.168.50.22") == 3
        member = words(found, f"etcd{number}", Role.ETCD)
        (peers,) = [word for word in member if word.startswith("--initial-cluster=")]
        assert peers.count("=http://192.168.50.22") == 3


def test_dual_stack_gives_services_both_ranges(tmp_path: Path) -> None:
    found = units.plan(places(tmp_path, "families: [IPv4, IPv6]"))
    server = words(found, "control1", Role.API_SERVER)
    assert "--service-cidr=10.96.0.0/16,fd00:96::/112" in server


def test_timings_are_those_of_production_unless_the_lab_wants_them_short(tmp_path: Path) -> None:
    slow = words(units.plan(places(tmp_path)), "control1", Role.MANAGER)
    fast = words(units.plan(places(tmp_path, "profile: lab")), "control1", Role.MANAGER)
    assert "--leader-elect-lease-duration=15s" in slow
    assert not [word for word in slow if word.startswith("--node-monitor")]
    assert "--leader-elect-lease-duration=3s" in fast
    assert "--node-monitor-grace-period=8s" in fast


def test_the_balancer_takes_the_best_mode_of_the_kernel_or_the_one_that_is_asked_for(
    tmp_path: Path,
) -> None:
    best = words(units.plan(places(tmp_path)), "edge", Role.BALANCER)
    assert not [word for word in best if word.startswith("--mode")]
    asked = places(tmp_path, "{mode: ipvs, balancer: {mode: iptables}}")
    assert "--mode=iptables" in words(units.plan(asked), "edge", Role.BALANCER)


def test_what_etcd_writes_is_not_taken_for_lines_of_ours(tmp_path: Path) -> None:
    found = units.plan(places(tmp_path, "controlPlane: {store: etcd}"))
    logs = {unit.name: Path(unit.log).suffix for some in found.values() for unit in some}
    assert logs["etcd"] == ".txt"
    assert logs["apiserver"] == ".log"


def test_secrets_are_their_owners_only_and_everybody_has_his_own(tmp_path: Path) -> None:
    made = places(tmp_path)
    made.prepare()
    assert stat.S_IMODE(made.root.stat().st_mode) == 0o700
    private = [path for path in made.pki.iterdir() if path.suffix in (".conf", ".key")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    configs = [made.kubeconfig(kubeconfigs.ADMIN), made.kubeconfig(kubeconfigs.PROXY)]
    configs += [made.node_kubeconfig(name) for name in ("node1", "node2")]
    access = [load_kubeconfig(path) for path in configs]
    assert {one.server for one in access} == {"https://192.168.49.1:6443"}
    assert len({one.cert_data for one in access}) == len(access)


def test_without_security_there_are_no_certificates(tmp_path: Path) -> None:
    made = places(tmp_path, "controlPlane: {security: none}")
    made.prepare()
    assert not list(made.pki.glob("*.crt"))
    assert load_kubeconfig(made.kubeconfig()).server == "http://192.168.49.1:6443"
    assert "--insecure" in words(units.plan(made), "control1", Role.API_SERVER)


def test_the_file_that_kubelets_read_says_the_same(tmp_path: Path) -> None:
    text = "nodes: [{name: a, labels: {disk: ssd}, zone: east}]\nimages: {x: {image: web}}"
    made = places(tmp_path, text)
    made.prepare()
    again = Site(clusterfile.load(made.site_file))
    assert again.node("a").labels == {"disk": "ssd", "topology.kubernetes.io/zone": "east"}
    assert msgspec.json.decode(made.images.read_bytes())["x"]["image"] == "web"


def test_proxies_get_what_the_file_says_of_them(tmp_path: Path) -> None:
    text = "mode: nftables\nproxy: {ipvs: {scheduler: sh}, clusterCIDR: 10.1.0.0/16}"
    config = addons.proxy_configuration(places(tmp_path, text))
    assert config["mode"] == "nftables"
    assert config["ipvs"] == {"scheduler": "sh"}
    assert config["clusterCIDR"] == "10.1.0.0/16"


@pytest.mark.parametrize(("text", "kinds"), [("", 3), ("dns: false", 1)])
def test_name_servers_are_there_if_the_file_wants_them(
    tmp_path: Path, text: str, kinds: int
) -> None:
    assert len(addons.manifests(places(tmp_path, text))) == kinds
