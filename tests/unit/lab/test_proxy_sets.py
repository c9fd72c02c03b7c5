"""Manifests of the lab's proxies: where they run, what their policy runs around them."""

from pathlib import Path

import pytest

from kproxy.api import configfile
from kproxy.lab import proxysets
from kproxy.lab.proxysets import ProxySet
from kproxy.lab.setups import Policy

KUBECONFIG = Path("/lab/kubeconfig")


def container(policy: Policy) -> proxysets.Object:
    made = proxysets.daemon_set(
        ProxySet(mode="ipvs", policy=policy), KUBECONFIG, KUBECONFIG.parent
    )
    (found,) = made["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_a_policy_is_what_runs_before_and_after() -> None:
    keep, flush, clean = (container(policy) for policy in Policy)
    assert "--cleanup" not in str(keep)
    assert "proxy --cleanup;" in flush["command"][2]
    assert flush["command"][4:] == keep["command"]
    assert clean["command"] == keep["command"]
    assert clean["lifecycle"]["preStop"]["exec"]["command"][-1] == "--cleanup"
    assert "lifecycle" not in flush


def test_proxies_of_several_modes_share_no_name_and_choose_nodes_by_their_label() -> None:
    sets = [ProxySet(mode=mode, selects=True) for mode in ("ipvs", "nftables")]
    made = [proxysets.daemon_set(one, KUBECONFIG, KUBECONFIG.parent) for one in sets]
    assert len({one["metadata"]["name"] for one in made}) == 2
    assert len({one.file for one in sets}) == 2
    for one, proxies in zip(made, sets, strict=True):
        template = one["spec"]["template"]
        assert template["spec"]["nodeSelector"] == {proxysets.MODE_LABEL: proxies.mode}
        assert template["metadata"]["labels"] == one["spec"]["selector"]["matchLabels"]
        assert template["metadata"]["labels"].items() >= proxysets.LABELS.items()
        assert proxies.key == ("DaemonSet", f"kube-system/{one['metadata']['name']}")


@pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
def test_another_version_marks_packets_otherwise(mode: str) -> None:
    bits = []
    for version in range(3):
        proxies = ProxySet(mode=mode, version=version)
        written = proxysets.configuration(proxies, "10.244.0.0/16", KUBECONFIG, {})
        loaded = configfile.decode_config(written, "test")
        assert not loaded.warnings
        bits.append(loaded.config.masquerade_bit)
    assert bits == [14, 13, 14]


def test_settings_beside_the_mark_stay() -> None:
    settings = {"iptables": {"syncPeriod": "1h"}}
    proxies = ProxySet(mode="iptables", version=1)
    written = proxysets.configuration(proxies, "10.244.0.0/16", KUBECONFIG, settings)
    assert written["iptables"] == {"syncPeriod": "1h", "masqueradeBit": 13}
    assert settings == {"iptables": {"syncPeriod": "1h"}}


def test_the_cleaner_spares_the_mode_in_use() -> None:
    pod = proxysets.cleaner("node1", "cleanup-1", "nftables")
    assert pod["spec"]["containers"][0]["command"][-1] == "--cleanup-except=nftables"
    every = proxysets.cleaner("node1", "cleanup-1", "")
    assert every["spec"]["containers"][0]["command"][-1] == "--cleanup"
    assert pod["spec"]["nodeName"] == "node1"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert not pod["metadata"].get("labels")
