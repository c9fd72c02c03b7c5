"""v1alpha1 and v1alpha2 of KubeProxyConfiguration: read, written, and one made of the other."""

from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kproxy.api import config, configfile, yamltext
from kproxy.api.config import KIND, KubeProxyConfiguration, Version, with_defaults
from kproxy.api.durations import Duration
from kproxy.errors import InvalidObject


def decode(version: Version, **fields: Any) -> configfile.LoadedConfig:
    return configfile.decode_config(
        {"apiVersion": version.value, "kind": KIND, **fields}, "c.yaml"
    )


# What is moved, and what each version says of it.
SAME = [
    ({"oomScoreAdj": -5}, {"linux": {"oomScoreAdj": -5}}),
    ({"conntrack": {"min": 7, "tcpBeLiberal": True, "cleanLast": True}},
     {"linux": {"conntrack": {"min": 7, "tcpBeLiberal": True, "cleanLast": True}}}),
    ({"iptables": {"syncPeriod": "9s", "masqueradeAll": True}, "ipvs": {"syncPeriod": "8s"}},
     {"syncPeriod": "9s", "linux": {"masqueradeAll": True}}),
    ({"mode": "ipvs", "ipvs": {"syncPeriod": "9s", "minSyncPeriod": "2s"},
      "iptables": {"masqueradeAll": True, "masqueradeBit": 3}},
     {"mode": "ipvs", "syncPeriod": "9s", "minSyncPeriod": "2s", "linux": {"masqueradeAll": True},
      "iptables": {"masqueradeBit": 3}, "ipvs": {"masqueradeBit": 3}}),
    ({"mode": "nftables", "nftables": {"masqueradeAll": True, "minSyncPeriod": "3s"}},
     {"mode": "nftables", "minSyncPeriod": "3s", "linux": {"masqueradeAll": True}}),
    ({"clusterCIDR": "10.0.0.0/8, fd00::/48"},
     {"detectLocal": {"clusterCIDRs": ["10.0.0.0/8", "fd00::/48"]}}),
    ({"bindAddress": "10.1.2.3"}, {"nodeIPOverride": ["10.1.2.3"]}),
    ({"bindAddress": "0.0.0.0"}, {}),
    ({"bindAddress": "::"},
     {"healthzBindAddress": "[::]:10256", "metricsBindAddress": "[::1]:10249"}),
    ({"windowsRunAsService": True}, {"windows": {"runAsService": True}}),
    ({"nodeIPOverride": ["10.1.2.3", "fd00::1"], "ipFamilyPolicy": "PreferDualStack"},
     {"nodeIPOverride": ["10.1.2.3", "fd00::1"], "ipFamilyPolicy": "PreferDualStack"}),
    ({"makeBeforeBreak": True}, {"makeBeforeBreak": True}),
]  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "iptables": {"localhostNodePorts": True},
    "bindAddressHardFail": False,
    "configHardFail": False,
}
"""What v1alpha2 has to say to mean what v1alpha1 does without a word."""


@pytest.mark.parametrize(("old", "new"), SAME, ids=str)
def test_both_versions_say_the_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    iptables = {**DEFAULTS["iptables"], **new.get("iptables", {})}
    first = decode(Version.V1ALPHA1, **old)
    second = decode(Version.V1ALPHA2, **{**DEFAULTS, **new, "iptables": iptables})
    assert first.config == second.config
    assert (first.warnings, second.warnings) == ([], [])


def test_the_newer_version_has_other_defaults() -> None:
    made = decode(Version.V1ALPHA2).config
    assert made.iptables.localhost_node_ports is False
    assert (made.bind_address_hard_fail, made.config_hard_fail) == (True, True)
    ipvs = decode(Version.V1ALPHA2, mode="ipvs").config
    assert (ipvs.min_sync_period, ipvs.sync_period) == (1, 30)
    assert decode(Version.V1ALPHA2, minSyncPeriod="0s").config.min_sync_period == 0


@pytest.mark.parametrize(
    ("field", "value", "now"),
    [
        ("conntrack", {"min": 1}, "linux.conntrack"),
        ("clusterCIDR", "10.0.0.0/8", "detectLocal.clusterCIDRs"),
        ("bindAddress", "10.0.0.1", "nodeIPOverride"),
    ],
)
def test_an_old_field_in_a_new_file_is_told_its_new_name(field: str, value: Any, now: str) -> None:
    loaded = decode(Version.V1ALPHA2, configHardFail=False, **{field: value})
    (warning,) = loaded.warnings
    assert (warning.field, warning.problem) == (field, "unknown field")
    assert warning.remedy == f"v1alpha2 calls it {now}"
    with pytest.raises(InvalidObject, match=f"in c.yaml: {field}: unknown field"):
        decode(Version.V1ALPHA2, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("linux", {"masqueradeAll": True}),
        ("syncPeriod", "9s"),
        ("windows", {"runAsService": True}),
    ],
)
def test_a_new_field_in_an_old_file_is_not_taken(field: str, value: Any) -> None:
    loaded = decode(Version.V1ALPHA1, **{field: value})
    assert loaded.config == decode(Version.V1ALPHA1).config
    (warning,) = loaded.warnings
    assert warning.field == field
    assert Version.V1ALPHA2 in warning.remedy


def test_mistakes_are_named_as_the_file_names_them() -> None:
    for version, fields, path in (
        (Version.V1ALPHA2, {"linux": {"conntrack": {"min": -1}}}, "linux.conntrack.min"),
        (Version.V1ALPHA2, {"minSyncPeriod": "1h"}, "minSyncPeriod"),
        (Version.V1ALPHA2, {"nodeIPOverride": ["x"]}, "nodeIPOverride[0]"),
        (Version.V1ALPHA2, {"detectLocal": {"clusterCIDRs": "x"}}, "detectLocal.clusterCIDRs"),
        (
            Version.V1ALPHA1,
            {"mode": "ipvs", "ipvs": {"minSyncPeriod": "1h"}},
            "ipvs.minSyncPeriod",
        ),
    ):
        with pytest.raises(InvalidObject) as caught:
            decode(version, **fields)
        assert (caught.value.field, bool(caught.value.remedy)) == (path, True)


# Any configuration that can be, with its defaults.
_texts = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=8)
_durations = st.integers(0, 10**16).map(lambda ns: Duration(ns / 10**9))
_bits, _counts = st.integers(0, 31), st.integers(0, 10**6)
_networks = st.lists(st.sampled_from(["10.0.0.0/8", "fd00::/48", "192.0.2.1/32"]), max_size=3)
_addresses = st.sampled_from([[], ["10.0.0.1"], ["fd00::1"], ["10.0.0.1", "fd00::1"]])
_endpoints = st.sampled_from(["0.0.0.0:1", "[::]:10256", "127.0.0.1:65535"])


def _optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


@st.composite
def configurations(draw: st.DrawFn) -> KubeProxyConfiguration:
    minimum = draw(_durations)
    version = draw(st.sampled_from(Version))
    made = KubeProxyConfiguration(
        feature_gates=draw(_optional(st.dictionaries(_texts, st.booleans(), max_size=2))),
        client_connection=config.ClientConnection(
            kubeconfig=draw(_texts), burst=draw(_counts), qps=draw(st.floats(0, 100))
        ),
        logging=draw(_optional(st.dictionaries(_texts, _counts, max_size=2))),
        hostname_override=draw(_texts),
        node_ip_override=draw(_optional(_addresses)),
        ip_family_policy=draw(st.sampled_from(["", "SingleStack", "RequireDualStack"])),
        healthz_bind_address=draw(_endpoints),
        metrics_bind_address=draw(_endpoints),
        bind_address_hard_fail=draw(_optional(st.booleans())),
        config_hard_fail=draw(_optional(st.booleans())),
        enable_profiling=draw(st.booleans()),
        service_proxy_name=draw(_texts),
        mode=draw(st.sampled_from(["", *config.MODES])),
        iptables=config.IPTables(
            masquerade_bit=draw(_optional(_bits)),
            localhost_node_ports=draw(_optional(st.booleans())),
        ),
        ipvs=config.IPVS(
            masquerade_bit=draw(_optional(_bits)),
            scheduler=draw(st.sampled_from(["", "rr", "lc"])),
            exclude_cidrs=draw(_optional(_networks)),
            strict_arp=draw(st.booleans()),
            tcp_timeout=draw(_durations),
        ),
        nftables=config.NFTables(masquerade_bit=draw(_optional(_bits))),
        linux=config.Linux(
            conntrack=config.Conntrack(
                max_per_core=draw(_optional(_counts)),
                tcp_established_timeout=draw(_optional(_durations)),
                udp_timeout=draw(_durations),
                clean_last=draw(st.booleans()),
            ),
            masquerade_all=draw(st.booleans()),
            oom_score_adj=draw(_optional(st.integers(-1000, 1000))),
        ),
        windows=config.Windows(run_as_service=draw(st.booleans())),
        detect_local=config.DetectLocal(
            bridge_interface=draw(_texts), cluster_cidrs=draw(_optional(_networks))
        ),
        node_port_addresses=draw(_optional(st.just(["primary"]) | _networks)),
        min_sync_period=draw(st.sampled_from([None, Duration(0), minimum])),
        sync_period=Duration(round((minimum + 1) * 10**9) / 10**9),
        make_before_break=draw(st.booleans()),
    )
    return with_defaults(made, version)


@given(configurations(), st.sampled_from(Version), st.sampled_from(Version))
def test_what_is_written_is_read_again(
    made: KubeProxyConfiguration, first: Version, second: Version
) -> None:
    for version in (first, second):
        text = yaml.safe_dump(configfile.encode_config(made, version), sort_keys=False)
        loaded = configfile.decode_config(yamltext.parse_one(text, "c"), "c")
        assert (loaded.version, loaded.warnings) == (version, [])
        assert loaded.config == made


def test_what_is_written_names_nothing_that_others_do_not_know_unless_it_is_set() -> None:
    body = configfile.encode_config(with_defaults(KubeProxyConfiguration()), Version.V1ALPHA1)
    text = msgspec.json.encode(body).decode()
    for ours in ("cleanLast", "makeBeforeBreak", "configHardFail", "nodeIPOverride", "linux"):
        assert ours not in text
    assert body["apiVersion"] == "kubeproxy.config.k8s.io/v1alpha1"
    assert body["conntrack"]["tcpEstablishedTimeout"] == "24h0m0s"


@given(st.integers(-(10**16), 10**16))
def test_durations_are_read_as_they_are_written(nanoseconds: int) -> None:
    duration = Duration(nanoseconds / 10**9)
    assert Duration.parse(duration.text) == duration


@pytest.mark.parametrize(
    "text", ["0s", "1ns", "1.5us", "100ms", "1s", "1.5s", "1m0s", "1h0m0.001s", "-2m3s"]
)
def test_durations_are_written_as_go_writes_them(text: str) -> None:
    assert Duration.parse(text).text == text


_scalars = (
    st.none() | st.booleans() | st.integers(-5, 99) | st.sampled_from(["", "0s", "-1s", "x"])
)
_fields = st.sampled_from(
    ["mode", "ipvs", "iptables", "nftables", "linux", "conntrack", "min", "syncPeriod", "logging",
     "minSyncPeriod", "masqueradeAll", "masqueradeBit", "clusterCIDR", "bindAddress", "winkernel",
     "detectLocal", "clusterCIDRs", "nodeIPOverride", "nodePortAddresses", "configSyncPeriod",
     "featureGates", "portRange", "windows", "healthzBindAddress", "excludeCIDRs"]
)  # fmt: skip
_anything = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_fields, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_fields, _anything, max_size=5), st.sampled_from(Version))
def test_whatever_a_file_holds_is_read_or_a_mistake_of_the_user(
    fields: dict[str, Any], version: Version
) -> None:
    try:
        loaded = decode(version, **fields)
    except InvalidObject:
        return
    again = configfile.decode_config(configfile.encode_config(loaded.config, version))
    assert again.config == loaded.config
