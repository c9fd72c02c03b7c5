"""What Prometheus and Alertmanager of a lab are told: files, options, targets."""

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kproxy.controlplane.access import kubeconfigs
from kproxy.errors import InvalidObject
from kproxy.lab import clusterfile
from kproxy.lab.site import Site
from kproxy.lab.whole import addons, monitoring, units
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.roles import Role
from kproxy.monitoring.remediation import settings

WATCHED = "{monitoring: true, controlPlane: {replicas: 2, store: etcd}}"


def places(tmp_path: Path, text: str = WATCHED) -> Places:
    return Places(tmp_path / "scratch", Site(clusterfile.parse(text, "lab.yaml")))


def written(tmp_path: Path, text: str = WATCHED) -> Places:
    made = places(tmp_path, text)
    made.prepare()
    monitoring.write(made)
    return made


def read(made: Places, host: str, name: str) -> Any:
    return yaml.safe_load((made.monitoring.host(host) / name).read_text())


def jobs(made: Places, host: str = "monitor1") -> dict[str, Any]:
    return {one["job_name"]: one for one in monitoring.prometheus(made, host)["scrape_configs"]}


def test_two_hosts_watch_only_if_the_file_says_so(tmp_path: Path) -> None:
    assert places(tmp_path, "").site.monitors == ()
    assert written(tmp_path / "not", "").site.monitors == ()
    assert not (tmp_path / "not" / "scratch" / "monitoring").exists()
    site = places(tmp_path).site
    assert [str(site.lan_address(host)) for host in site.monitors] == [
        "192.168.50.231", "192.168.50.232",
    ]  # fmt: skip
    site.topology().validate()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("monitoring: 3", "monitoring"),
        ("monitoring: {grafana: true}", "monitoring"),
        ("nodes: [{name: monitor1}]", "nodes[0].name"),
    ],
)
def test_each_mistake_is_told_with_its_field(text: str, field: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        Site(clusterfile.parse(text, "lab.yaml")).check("lab.yaml")
    assert caught.value.field.startswith(field)


def test_each_host_that_watches_has_all_it_takes_and_each_node_its_exporter(
    tmp_path: Path,
) -> None:
    found = units.plan(places(tmp_path))
    names = {host: [unit.name for unit in some] for host, some in found.items()}
    watching = {Role.PROMETHEUS, Role.ALERTMANAGER, Role.DISCOVERY, Role.STATE}
    for host in ("monitor1", "monitor2"):
        assert watching <= {*names[host]}
    assert names["node1"] == [Role.KUBELET, Role.NODE_EXPORTER]
    assert names["admin"] == [Role.PAGER]
    assert Role.PAGER not in {
        unit.name for host in found if host != "admin" for unit in found[host]
    }


def test_alertmanagers_gossip_with_each_other(tmp_path: Path) -> None:
    found = units.plan(places(tmp_path))
    for own, other in (("231", "232"), ("232", "231")):
        host = f"monitor{own[-1]}"
        (unit,) = [unit for unit in found[host] if unit.name == Role.ALERTMANAGER]
        assert f"--cluster.listen-address=192.168.50.{own}:9094" in unit.command
        assert f"--cluster.peer=192.168.50.{other}:9094" in unit.command


def test_both_prometheuses_tell_both_alertmanagers_in_the_same_words(tmp_path: Path) -> None:
    made = places(tmp_path)
    first, second = (monitoring.prometheus(made, host) for host in made.site.monitors)
    assert first["alerting"] == second["alerting"]
    (managers,) = first["alerting"]["alertmanagers"]
    assert managers["static_configs"][0]["targets"] == [
        "192.168.50.231:9093", "192.168.50.232:9093",
    ]  # fmt: skip
    # Labels that differ would make two alerts of one.
    own = [set(one["global"]["external_labels"].items()) for one in (first, second)]
    differing = {name for name, _ in own[0] ^ own[1]}
    dropped = {one["regex"] for one in first["alerting"]["alert_relabel_configs"]}
    assert differing == dropped == {"prometheus_replica"}


def test_what_an_exporter_of_states_tells_does_not_name_the_exporter(tmp_path: Path) -> None:
    for host, number in (("monitor1", 231), ("monitor2", 232)):
        job = jobs(places(tmp_path), host)["kube-state-metrics"]
        (target,) = job["static_configs"]
        assert target == {"targets": [f"192.168.50.{number}:8081"], "labels": {"node": host}}
        cleared = {
            (one["target_label"], one["regex"], one["replacement"])
            for one in job["metric_relabel_configs"]
        }
        assert cleared == {("node", host, ""), ("instance", f"192.168.50.{number}:8081", "")}


def test_scrapes_come_as_often_as_the_profile_says(tmp_path: Path) -> None:
    slow = monitoring.prometheus(places(tmp_path), "monitor1")["global"]
    fast = monitoring.prometheus(places(tmp_path, "{monitoring: true, profile: lab}"), "monitor1")[
        "global"
    ]
    assert (slow["scrape_interval"], slow["evaluation_interval"]) == ("30s", "30s")
    assert (fast["scrape_interval"], fast["evaluation_interval"]) == ("1s", "1s")


def test_jobs_follow_what_the_cluster_has(tmp_path: Path) -> None:
    all_jobs = {
        "kube-proxy", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
        "etcd", "kube-dns", "kube-state-metrics", "node-exporter", "prometheus", "alertmanager",
        "kproxy-prober", "kproxy-remediation", "kproxy-discovery", "kproxy-balancer",
    }  # fmt: skip
    assert set(jobs(places(tmp_path))) == all_jobs
    less = places(tmp_path, "{monitoring: {remediation: false}, dns: false}")
    assert all_jobs - set(jobs(less)) == {"etcd", "kube-dns", "kproxy-remediation"}


def test_what_is_no_object_of_the_api_is_listed_with_the_host_it_runs_on(tmp_path: Path) -> None:
    found = jobs(places(tmp_path))
    for job, expected in (
        ("kube-scheduler", {(f"192.168.50.20{n}:10259", f"control{n}") for n in (1, 2)}),
        ("etcd", {(f"192.168.50.22{n}:2381", f"etcd{n}") for n in (1, 2, 3)}),
    ):
        listed = found[job]["static_configs"]
        assert {(one["targets"][0], one["labels"]["node"]) for one in listed} == expected


def test_parts_answer_where_they_are_asked(tmp_path: Path) -> None:
    made = places(tmp_path)
    found = units.plan(made)
    commands = {(host, unit.name): unit.command for host, some in found.items() for unit in some}
    assert "--healthz-bind-address=0.0.0.0:10257" in commands["control1", Role.MANAGER]
    assert "--healthz-bind-address=0.0.0.0:10259" in commands["control2", Role.SCHEDULER]
    assert "--listen-metrics-urls=http://192.168.50.221:2381" in commands["etcd1", Role.ETCD]
    assert addons.proxy_configuration(made)["metricsBindAddress"] == "0.0.0.0:10249"
    ports = {
        (one["metadata"]["name"], port["name"]): port["containerPort"]
        for one in addons.manifests(made)
        if one["kind"] != "Service"
        for port in one["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert ports["kube-proxy", "metrics"] == 10249
    assert ports["kube-dns", "metrics"] == 9153
    assert ports["kproxy-prober", "metrics"] == 9815


def test_nothing_of_it_is_open_where_nobody_watches(tmp_path: Path) -> None:
    made = places(tmp_path, "controlPlane: {store: etcd}")
    words = " ".join(
        word for some in units.plan(made).values() for u in some for word in u.command
    )
    assert "10257" not in words
    assert "2381" not in words
    assert "metricsBindAddress" not in addons.proxy_configuration(made)


def test_remediation_is_told_with_a_token_that_only_its_owner_may_read(tmp_path: Path) -> None:
    made = written(tmp_path)
    assert stat.S_IMODE(made.monitoring.token.stat().st_mode) == 0o600
    found = read(made, "monitor2", "alertmanager.yml")
    receivers = {one["name"]: one for one in found["receivers"]}
    (hook,) = receivers["remediation"]["webhook_configs"]
    assert hook["url"] == "http://192.168.50.231:9095/alerts"
    assert hook["send_resolved"] is True
    assert hook["http_config"]["authorization"]["credentials_file"] == str(made.monitoring.token)


def test_without_remediation_people_are_told_and_nobody_else(tmp_path: Path) -> None:
    made = places(tmp_path, "monitoring: {remediation: false}")
    found = monitoring.alertmanager(made)
    names = {one["name"] for one in found["receivers"]}
    used = {one["receiver"] for one in (found["route"], *found["route"]["routes"])}
    assert "remediation" not in names | used
    assert used <= names


@pytest.mark.needs_tool("promtool", "amtool")
@pytest.mark.parametrize("profile", ["production", "lab"])
@pytest.mark.parametrize("security", ["tls", "none"])
def test_prometheus_and_alertmanager_accept_their_files(
    tmp_path: Path, profile: str, security: str
) -> None:
    text = f"{{monitoring: true, profile: {profile}, controlPlane: {{security: {security}}}}}"
    made = written(tmp_path, text)
    assert list(made.monitoring.rules.glob("*.yaml"))
    for host in made.site.monitors:
        directory = made.monitoring.host(host)
        for command in (
            ["promtool", "check", "config", str(directory / "prometheus.yml")],
            ["amtool", "check-config", str(directory / "alertmanager.yml")],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def test_remediation_is_told_the_places_of_the_lab(tmp_path: Path) -> None:
    made = written(tmp_path, "{monitoring: true, profile: lab}")
    found = settings.load(made.monitoring.remediation)
    assert found.listen == "0.0.0.0:9095"
    assert found.token_file == str(made.monitoring.token)
    assert found.kubeconfig == str(made.kubeconfig(kubeconfigs.REMEDIATION))
    assert found.divide == 60
    assert "restart-proxy" in found.actions
    running = {(host, unit.name) for host, some in units.plan(made).items() for unit in some}
    assert {host for host, name in running if name == Role.REMEDIATION} == {"monitor1"}


def test_nodes_tell_nothing_of_the_machine_below_them(tmp_path: Path) -> None:
    (unit,) = [
        unit for unit in units.plan(places(tmp_path))["node1"] if unit.name == Role.NODE_EXPORTER
    ]
    asked = {word.partition(".")[2] for word in unit.command if word.startswith("--collector.")}
    assert "disable-defaults" in asked
    assert "conntrack" in asked
    # Their numbers differ in every run of an embedded kernel, and so would all that follows.
    assert not asked & {"meminfo", "vmstat", "stat", "loadavg", "cpu", "filesystem", "diskstats"}
