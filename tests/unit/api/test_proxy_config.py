"""KubeProxyConfiguration and kube-proxy's flags."""

import re

import pytest

from kproxy.api import configfile, flags
from kproxy.api.config import API_VERSION, KIND
from kproxy.errors import InvalidObject, UsageError

HEAD = {"apiVersion": API_VERSION, "kind": KIND}


def decode(**fields):
    return configfile.decode_config({**HEAD, **fields}, "config.yaml")


def test_defaults_are_those_of_kube_proxy():
    config = decode().config
    assert config.mode == "iptables"
    assert config.healthz_bind_address == "0.0.0.0:10256"
    assert config.metrics_bind_address == "127.0.0.1:10249"
    assert config.detect_local_mode == "ClusterCIDR"
    assert config.config_sync_period == 900
    assert (config.iptables.sync_period, config.iptables.min_sync_period) == (30, 1)
    assert (config.ipvs.sync_period, config.ipvs.min_sync_period) == (30, 0)
    assert (config.ipvs.scheduler, config.iptables.masquerade_bit) == ("rr", 14)
    assert config.conntrack.tcp_established_timeout == 86400
    assert config.conntrack.tcp_close_wait_timeout == 3600


def test_fields_are_read():
    config = decode(
        mode="ipvs",
        clientConnection={"kubeconfig": "/etc/kubeconfig"},
        hostnameOverride=" Node1 ",
        clusterCIDR="10.128.0.0/9, fd00:10:128::/48",
        ipvs={"scheduler": "wrr", "tcpTimeout": "5m0s", "tcpFinTimeout": "20s", "strictARP": True,
              "excludeCIDRs": ["10.0.0.0/8"], "minSyncPeriod": "100ms"},
        iptables={"masqueradeAll": True, "masqueradeBit": 0},
        conntrack={"tcpEstablishedTimeout": "0s"},
    ).config  # fmt: skip
    assert config.client_connection.kubeconfig == "/etc/kubeconfig"
    assert config.hostname_override == "node1"
    assert config.cluster_cidrs() == ["10.128.0.0/9", "fd00:10:128::/48"]
    assert config.ipvs.tcp_timeout == 300
    assert config.ipvs.min_sync_period == pytest.approx(0.1)
    assert config.ipvs.exclude_cidrs == ["10.0.0.0/8"]
    assert config.ipvs.strict_arp
    assert config.iptables.masquerade_all
    assert config.iptables.masquerade_bit == 0
    assert config.conntrack.tcp_established_timeout == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [("0.0.0.0", "0.0.0.0:10256"), ("::", "[::]:10256"), ("[fd00::1]", "[fd00::1]:10256"),
     ("127.0.0.1:9", "127.0.0.1:9"), ("[::1]:9", "[::1]:9")],
)  # fmt: skip
def test_a_bind_address_may_lack_its_port(text, address):
    assert decode(healthzBindAddress=text).config.healthz_bind_address == address


def test_null_is_absent():
    assert decode(mode=None, ipvs=None, conntrack={"min": None}).config == decode().config


def test_a_kubeadm_like_file_gives_no_notes():
    loaded = decode(
        bindAddress="0.0.0.0", bindAddressHardFail=False, featureGates=None,
        nodePortAddresses=None,
        clientConnection={"acceptContentTypes": "", "burst": 0, "contentType": "", "qps": 0},
        conntrack={"maxPerCore": None, "min": None, "tcpBeLiberal": False, "udpTimeout": "0s"},
        detectLocal={"bridgeInterface": "", "interfaceNamePrefix": ""}, enableProfiling=False,
        iptables={"localhostNodePorts": None}, portRange="", oomScoreAdj=None, winkernel={},
        metricsBindAddress="127.0.0.1:10249", configSyncPeriod="15m0s",
        logging={"format": ""}, nftables={"masqueradeBit": None, "syncPeriod": "0s"},
    )  # fmt: skip
    assert (loaded.notes, loaded.warnings) == ([], [])


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"nodePortAddresses": ["primary"]}, "nodePortAddresses"),
        ({"conntrack": {"maxPerCore": 1}}, "conntrack.maxPerCore"),
        ({"iptables": {"localhostNodePorts": False}}, "iptables.localhostNodePorts"),
        ({"detectLocalMode": "NodeCIDR"}, "detectLocalMode NodeCIDR"),
        ({"featureGates": {"X": True}}, "featureGates"),
        ({"oomScoreAdj": -500}, "oomScoreAdj"),
        ({"metricsBindAddress": "0.0.0.0:10249"}, "metricsBindAddress"),
        ({"configSyncPeriod": "1m"}, "configSyncPeriod"),
    ],
)
def test_what_is_not_honoured_is_told(fields, path):
    (note,) = decode(**fields).notes
    assert note.startswith(f"{path} is not honoured by this version")


def test_unknown_fields_are_warned_of():
    loaded = decode(mod="ipvs", ipvs={"schedular": "rr"})
    assert [str(warning) for warning in loaded.warnings] == [
        f"{KIND} in config.yaml: {path}: unknown field (remove it, or correct its spelling)"
        for path in ("mod", "ipvs.schedular")
    ]


BAD = [
    ({"mode": "userspace"}, "mode"),
    ({"mode": 3}, "mode"),
    ({"ipvs": {"scheduler": "best"}}, "ipvs.scheduler"),
    ({"ipvs": {"tcpTimeout": 3}}, "ipvs.tcpTimeout"),
    ({"ipvs": {"tcpTimeout": "3"}}, "ipvs.tcpTimeout"),
    ({"ipvs": {"tcpTimeout": "-3s"}}, "ipvs.tcpTimeout"),
    ({"ipvs": {"strictARP": "yes"}}, "ipvs.strictARP"),
    ({"ipvs": {"excludeCIDRs": ["x"]}}, "ipvs.excludeCIDRs[0]"),
    ({"ipvs": []}, "ipvs"),
    ({"iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit"),
    ({"iptables": {"minSyncPeriod": "40s"}}, "iptables.minSyncPeriod"),
    ({"clusterCIDR": "10.0.0.1"}, "clusterCIDR"),
    ({"healthzBindAddress": "localhost:1"}, "healthzBindAddress"),
    ({"metricsBindAddress": "127.0.0.1:70000"}, "metricsBindAddress"),
    ({"detectLocalMode": "Magic"}, "detectLocalMode"),
    ({"apiVersion": "kubeproxy.config.k8s.io/v1alpha2"}, "apiVersion"),
    ({"apiVersion": None}, "apiVersion"),
    ({"kind": "Pod"}, "kind"),
]


@pytest.mark.parametrize(("fields", "path"), BAD, ids=str)
def test_mistakes_name_the_field(fields, path):
    with pytest.raises(InvalidObject) as caught:
        decode(**fields)
    assert caught.value.field == path
    assert caught.value.remedy
    assert "config.yaml" in str(caught.value)


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
    assert config.ipvs.min_sync_period == pytest.approx(0.1)
    assert config.iptables.masquerade_all
    assert config.iptables.masquerade_bit == 15
    assert config.ipvs.exclude_cidrs == ["10.0.0.0/8", "10.1.0.0/16"]


@pytest.mark.parametrize("line", ["-v2", "-v=2", "-v 2", "--v 2", "--v=2"])
def test_verbosity(line):
    assert flags.parse_flags(line.split()).verbosity == 2


def test_a_boolean_takes_a_value_only_after_an_equals_sign():
    assert flags.parse_flags(["--cleanup"]).cleanup
    assert not flags.parse_flags(["--cleanup=false"]).cleanup
    with pytest.raises(UsageError, match="unknown argument 'false'"):
        flags.parse_flags(["--cleanup", "false"])


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


def test_flags_without_effect_are_told_once():
    loaded = resolve("--nodeport-addresses primary --feature-gates A=true --oom-score-adj -5")
    assert loaded.notes == [
        "--nodeport-addresses is not honoured by this version",
        "--feature-gates is not honoured by this version",
        "--oom-score-adj is not honoured by this version",
    ]


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
        ("--write-config-to x", "--write-config-to is not supported"),
        ("--init-only", "--init-only is not supported"),
    ],
)
def test_wrong_flags_are_usage_errors(line, told):
    with pytest.raises(UsageError, match=told):
        resolve(line)


def test_the_help_tells_every_flag():
    text = flags.help_text()
    for flag in flags.FLAGS:
        assert re.search(rf"--{flag.name}\b", text), flag.name
    assert max(len(line) for line in text.splitlines()) < 100


@pytest.mark.parametrize("flag", [flag for flag in flags.FLAGS if flag.path], ids=str)
def test_every_flag_leads_to_a_field_that_exists(flag):
    samples = {"text": "", "bool": "true", "int": "1", "float": "1", "duration": "2s",
               "list": "10.0.0.0/8", "map": "A=true"}  # fmt: skip
    options = flags.parse_flags([f"--{flag.name}={samples[flag.kind]}"])
    assert flags.resolve(options).warnings == []
