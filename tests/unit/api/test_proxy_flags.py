"""kube-proxy's flags: reading them, and what they make together with a file."""

import re

import pytest

from kproxy.api import flaghelp, flags, flagtable
from kproxy.api.config import KIND, Version
from kproxy.errors import InvalidObject, UsageError

HEAD = {"apiVersion": Version.V1ALPHA1.value, "kind": KIND}


def resolve(line, file=None):
    return flags.resolve(flags.parse_flags(line.split()), file)


def test_flags_set_fields():
    config = resolve(
        "--proxy-mode ipvs --kubeconfig=/k --hostname-override N1 --ipvs-min-sync-period 100ms"
        " --masquerade-all --iptables-masquerade-bit=15 --cluster_cidr 10.0.0.0/8"
        " --ipvs-exclude-cidrs 10.0.0.0/8,10.1.0.0/16"
    ).config
    assert (config.mode, config.client_connection.kubeconfig) == ("ipvs", "/k")
    assert config.hostname_override == "n1"
    assert config.min_sync_period == 0.1
    assert config.linux.masquerade_all
    assert (config.masquerade_bit, config.iptables.masquerade_bit) == (15, 15)
    assert config.cluster_cidrs() == ["10.0.0.0/8"]
    assert config.ipvs.exclude_cidrs == ["10.0.0.0/8", "10.1.0.0/16"]


@pytest.mark.parametrize("line", ["-v2", "-v=2", "-v 2", "--v 2", "--v=2"])
def test_verbosity(line):
    assert flags.parse_flags(line.split()).verbosity == 2


def test_a_boolean_takes_a_value_only_after_an_equals_sign():
    assert flags.parse_flags(["--cleanup"]).cleanup
    assert not flags.parse_flags(["--cleanup=false"]).cleanup
    with pytest.raises(UsageError, match="unknown argument 'false'"):
        flags.parse_flags(["--cleanup", "false"])


@pytest.mark.parametrize("line", [["--cleanup-except="], ["--cleanup-except", ""]])
def test_a_cleanup_without_its_mode_does_not_start_a_proxy(line):
    assert flags.parse_flags(["--cleanup-except=ipvs"]).cleanup_except == "ipvs"
    with pytest.raises(UsageError, match="--cleanup-except lacks its mode"):
        flags.parse_flags(line)


def test_the_file_wins_over_flags_but_not_over_the_host_name():
    file = {**HEAD, "mode": "iptables", "hostnameOverride": "n2", "ipvs": {"scheduler": "sh"}}
    loaded = resolve(
        "--config c.yaml --proxy-mode ipvs --hostname-override n1 --ipvs-scheduler sh", file
    )
    assert (loaded.config.mode, loaded.config.hostname_override) == ("iptables", "n1")
    assert loaded.notes == ["--proxy-mode is ignored: c.yaml sets mode"]
    assert file["hostnameOverride"] == "n2"


def test_flags_count_where_the_file_says_nothing():
    file = {**HEAD, "mode": "", "clientConnection": {"kubeconfig": ""}}
    loaded = resolve("--config c.yaml --proxy-mode ipvs --kubeconfig /k", file)
    assert (loaded.config.mode, loaded.config.client_connection.kubeconfig) == ("ipvs", "/k")
    assert loaded.notes == []


def test_flags_of_the_node_and_of_connection_tracking():
    config = resolve(
        "--nodeport-addresses 10.0.0.0/8,fd00::/8 --bind-address 10.0.0.1 --oom-score-adj -5"
        " --bind-address-hard-fail --iptables-localhost-nodeports=false --conntrack-clean-last"
        " --make-before-break --conntrack-max-per-core 0 --conntrack-tcp-be-liberal"
        " --detect-local-mode BridgeInterface --pod-bridge-interface cni0"
    ).config
    assert config.node_port_addresses == ["10.0.0.0/8", "fd00::/8"]
    assert config.node_ip_override == ["10.0.0.1"]
    assert (config.linux.oom_score_adj, config.bind_address_hard_fail) == (-5, True)
    assert config.iptables.localhost_node_ports is False
    assert (config.linux.conntrack.clean_last, config.make_before_break) == (True, True)
    assert (config.linux.conntrack.max_per_core, config.linux.conntrack.min) == (0, 131072)
    assert config.linux.conntrack.tcp_be_liberal
    assert (config.detect_local_mode, config.detect_local.bridge_interface) == (
        "BridgeInterface",
        "cni0",
    )


def test_an_address_that_is_none_leaves_the_nodes_to_its_object():
    assert resolve("--bind-address 0.0.0.0").config.node_ip_override is None
    assert resolve("--bind-address ::").config.node_ip_override is None


@pytest.mark.parametrize(
    ("line", "mode", "period"),
    [
        ("--ipvs-min-sync-period 2s --iptables-min-sync-period 3s", "ipvs", 2),
        ("--ipvs-min-sync-period 2s --iptables-min-sync-period 3s", "nftables", 3),
        ("--ipvs-min-sync-period 2s --iptables-min-sync-period 0s", "iptables", 0),
    ],
)
def test_periods_are_those_of_the_mode(line, mode, period):
    loaded = resolve(f"{line} --proxy-mode {mode}")
    assert loaded.config.min_sync_period == period
    other = "iptables" if mode == "ipvs" else "ipvs"
    assert loaded.notes == [f"--{other}-min-sync-period has no effect: the mode is {mode}"]


@pytest.mark.parametrize(
    ("line", "healthz", "metrics"),
    [
        ("--healthz-port 1 --metrics-port 2", "0.0.0.0:1", "127.0.0.1:2"),
        ("--healthz-port 1 --healthz-bind-address fd00::1", "[fd00::1]:1", "127.0.0.1:10249"),
        ("--metrics-port 1 --metrics-bind-address 10.0.0.1:7", "0.0.0.0:10256", "10.0.0.1:7"),
        ("--metrics-port 0 --healthz-port=0", "0.0.0.0:0", "127.0.0.1:0"),
        ("--metrics-bind-address= --healthz-bind-address=", "0.0.0.0:0", "127.0.0.1:0"),
    ],
)
def test_ports_alone_are_addresses_too(line, healthz, metrics):
    config = resolve(line).config
    assert (config.healthz_bind_address, config.metrics_bind_address) == (healthz, metrics)


def test_flags_count_beside_a_file_of_either_version():
    line = "--config c --proxy-mode ipvs --conntrack-min 5 --cluster-cidr 10.0.0.0/8"
    for version in Version:
        loaded = resolve(line, {**HEAD, "apiVersion": version.value})
        assert (loaded.config.mode, loaded.config.linux.conntrack.min) == ("ipvs", 5)
        assert loaded.config.cluster_cidrs() == ["10.0.0.0/8"]
        assert (loaded.version, loaded.notes) == (version, [])


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ({"conntrack": {"min": 4}}, "conntrack.min"),
        ({"linux": {"conntrack": {"min": 4}}}, "linux.conntrack.min"),
    ],
)
def test_an_overruled_flag_names_the_field_as_the_file_does(file, field):
    version = Version.V1ALPHA1 if "conntrack" in file else Version.V1ALPHA2
    loaded = resolve("--config c --conntrack-min 5", {**HEAD, "apiVersion": version.value, **file})
    assert loaded.notes == [f"--conntrack-min is ignored: c sets {field}"]


def test_a_files_mistake_is_the_files_and_a_flags_the_flags():
    with pytest.raises(InvalidObject, match=r"conntrack\.min: -4 is out of range"):
        resolve("--config c", {**HEAD, "conntrack": {"min": -4}})
    with pytest.raises(UsageError, match="--conntrack-min: -4 is out of range"):
        resolve("--config c --conntrack-min=-4", HEAD)


def test_flags_without_effect_are_told_once_with_the_reason():
    loaded = resolve("--feature-gates A=true --kube-api-qps 7 --enable-dsr --vmodule x=2")
    assert [note.partition(":")[0] for note in loaded.notes] == [
        "--feature-gates has no effect",
        "--kube-api-qps has no effect",
        "--enable-dsr has no effect",
        "--vmodule has no effect",
    ]
    assert "Windows" in loaded.notes[2]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--proxy-mod x", r"unknown flag --proxy-mod \(did you mean --proxy-mode\?\)"),
        ("--zzz", "unknown flag --zzz"),
        ("web", "unknown argument 'web'"),
        ("--kubeconfig", "--kubeconfig lacks its value"),
        ("--masquerade-all=maybe", "--masquerade-all: 'maybe' is not true or false"),
        ("--iptables-masquerade-bit x", "'x' is not a whole number"),
        ("--ipvs-sync-period 3", "--ipvs-sync-period: '3' is not a duration"),
        ("--feature-gates A", "is not Name=true"),
        ("--proxy-mode magic", "--proxy-mode: unknown value 'magic' .*use one of"),
        ("--cluster-cidr 10.0.0.0", "--cluster-cidr: '10.0.0.0' is not a network"),
        ("--write-config-version v2", "--write-config-version: unknown version 'v2'"),
        ("--nodeport-addresses primary,10.0.0.0/8", "--nodeport-addresses: holds 'primary'"),
        ("--bind-address here", "--bind-address: 'here' is not an address"),
        ("--ipvs-min-sync-period 40s --proxy-mode ipvs", "--ipvs-min-sync-period: is longer"),
        ("--oom-score-adj 2000", "--oom-score-adj: 2000 is out of range"),
    ],
)
def test_wrong_flags_are_usage_errors(line, told):
    with pytest.raises(UsageError, match=told):
        resolve(line)


def test_the_help_tells_every_flag():
    text = flaghelp.help_text()
    for flag in flagtable.FLAGS:
        assert re.search(rf"--{flag.name}\b", text), flag.name
        assert flag.help or flag.idle
    assert re.search(r"--ipvs-scheduler text +IPVS scheduler \(default rr\)", text)
    assert max(len(line) for line in text.splitlines()) < 100


@pytest.mark.parametrize("flag", [flag for flag in flagtable.FLAGS if flag.path], ids=str)
def test_every_flag_leads_to_a_field_that_exists(flag):
    samples = {"text": "10.0.0.1" if flag.name == "bind-address" else "", "bool": "true",
               "int": "1", "float": "1", "duration": "2s", "list": "10.0.0.0/8",
               "map": "A=true"}  # fmt: skip
    mode = flag.modes[0] if flag.modes else ""
    options = flags.parse_flags([f"--{flag.name}={samples[flag.kind]}", f"--proxy-mode={mode}"])
    loaded = flags.resolve(options)
    assert loaded.warnings == []
    assert all("no effect" in note for note in loaded.notes) is bool(flag.idle or not loaded.notes)
