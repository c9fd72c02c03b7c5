"""Reading KubeProxyConfiguration: defaults, mistakes, and what is told."""

import pytest

from kproxy.api import configfile
from kproxy.api.config import KIND, Version
from kproxy.errors import InvalidObject

HEAD = {"apiVersion": Version.V1ALPHA1.value, "kind": KIND}


def decode(**fields):
    return configfile.decode_config({**HEAD, **fields}, "config.yaml")


def test_defaults_are_those_of_kube_proxy():
    config = decode().config
    assert config.mode == "iptables"
    assert config.healthz_bind_address == "0.0.0.0:10256"
    assert config.metrics_bind_address == "127.0.0.1:10249"
    assert config.detect_local_mode == "ClusterCIDR"
    assert config.config_sync_period == 900
    assert (config.sync_period, config.min_sync_period) == (30, 1)
    assert (config.ipvs.scheduler, config.masquerade_bit) == ("rr", 14)
    assert config.linux.conntrack.tcp_established_timeout == 86400
    assert config.linux.conntrack.tcp_close_wait_timeout == 3600
    assert (config.linux.conntrack.max_per_core, config.linux.conntrack.min) == (32768, 131072)
    assert (config.linux.oom_score_adj, config.iptables.localhost_node_ports) == (-999, True)
    assert (config.bind_address_hard_fail, config.config_hard_fail) == (False, False)
    assert (config.node_ip_override, config.node_port_addresses) == (None, None)
    assert (config.linux.conntrack.clean_last, config.make_before_break) == (False, False)


def test_defaults_depend_on_the_mode():
    ipvs, nftables = decode(mode="ipvs").config, decode(mode="nftables").config
    assert (ipvs.sync_period, ipvs.min_sync_period) == (30, 0)
    assert (nftables.min_sync_period, nftables.node_port_addresses) == (1, ["primary"])
    assert decode(iptables={"minSyncPeriod": "0s"}).config.min_sync_period == 1


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
    assert config.min_sync_period == 0.1
    assert config.ipvs.exclude_cidrs == ["10.0.0.0/8"]
    assert config.ipvs.strict_arp
    assert config.linux.masquerade_all
    assert config.masquerade_bit == 0
    assert config.linux.conntrack.tcp_established_timeout == 0


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
    ("fields", "told"),
    [
        ({"featureGates": {"X": True}}, "featureGates has no effect: the features"),
        ({"configSyncPeriod": "1m"}, "configSyncPeriod has no effect: watches"),
        ({"winkernel": {"enableDSR": True}}, "winkernel has no effect: it concerns Windows"),
        ({"windowsRunAsService": True}, "windowsRunAsService has no effect: it concerns Windows"),
        ({"enableProfiling": True}, "enableProfiling has no effect: it concerns the runtime"),
        ({"clientConnection": {"qps": 7}}, "clientConnection.qps has no effect"),
        ({"logging": {"format": "xml"}}, "logging has no effect: log lines are always JSON"),
        ({"portRange": "1-2"}, "portRange has no effect: nothing uses it"),
    ],
)
def test_what_has_no_effect_is_told_with_the_reason(fields, told):
    (note,) = decode(**fields).notes
    assert note.startswith(told)


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
    ({"nodePortAddresses": ["primary", "10.0.0.0/8"]}, "nodePortAddresses"),
    ({"nodePortAddresses": ["10.0.0.1"]}, "nodePortAddresses[0]"),
    ({"bindAddress": "node1"}, "bindAddress"),
    ({"bindAddress": "224.0.0.1"}, "bindAddress"),
    ({"clusterCIDR": ["10.0.0.0/8"]}, "clusterCIDR"),
    ({"oomScoreAdj": -1001}, "oomScoreAdj"),
    ({"conntrack": {"min": -1}}, "conntrack.min"),
    ({"conntrack": {"maxPerCore": "all"}}, "conntrack.maxPerCore"),
    ({"conntrack": []}, "conntrack"),
    ({"mode": "ipvs", "iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit"),
    ({"mode": "ipvs", "iptables": {"masqueradeBit": "x"}}, "iptables.masqueradeBit"),
    ({"mode": "ipvs", "ipvs": {"minSyncPeriod": "40s"}}, "ipvs.minSyncPeriod"),
    ({"mode": "nftables", "ipvs": {"syncPeriod": 3}}, "ipvs.syncPeriod"),
    ({"detectLocalMode": "BridgeInterface"}, "detectLocal.bridgeInterface"),
    ({"detectLocalMode": "InterfaceNamePrefix"}, "detectLocal.interfaceNamePrefix"),
    ({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "a/b"}},
     "detectLocal.bridgeInterface"),
    ({"nodeIPOverride": ["10.0.0.1", "10.0.0.2"]}, "bindAddress"),
    ({"ipFamilyPolicy": "Both"}, "ipFamilyPolicy"),
    ({"apiVersion": "kubeproxy.config.k8s.io/v1beta1"}, "apiVersion"),
    ({"apiVersion": None}, "apiVersion"),
    ({"kind": "Pod"}, "kind"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "path"), BAD, ids=str)
def test_mistakes_name_the_field(fields, path):
    with pytest.raises(InvalidObject) as caught:
        decode(**fields)
    assert caught.value.field == path
    assert caught.value.remedy
    assert "config.yaml" in str(caught.value)
