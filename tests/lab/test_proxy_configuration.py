"""The proxy as a process and its configuration file: of either version, and changed under it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_node
import pytest
from agent_node import Node
from stub_api import service, slice_of

from kproxy.cli.nodeproxy import EXIT_CHANGED
from netns import namespace

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, "iptables") as node:
        node.api.put(service("web", "10.96.0.10"), slice_of("web", "10.128.0.5", "10.128.1.6"))
        yield node


def config_map(directory: Path, number: int, fields: dict[str, Any]) -> None:
    """Write a configuration file as a kubelet does: behind a link that is then turned to it."""
    version = directory / f"..version{number}"
    version.mkdir()
    head = {"kind": "KubeProxyConfiguration", "hostnameOverride": "node1"}
    (version / "config").write_text(json.dumps({**head, **fields}))
    (directory / "..new").symlink_to(version.name)
    (directory / "..new").rename(directory / "..data")


V1ALPHA1 = "kubeproxy.config.k8s.io/v1alpha1"
V1ALPHA2 = "kubeproxy.config.k8s.io/v1alpha2"


def test_a_changed_config_map_ends_the_proxy_and_its_successor_follows_it(
    node: Node, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    config_map(mount, 1, {"apiVersion": V1ALPHA1, "iptables": {"minSyncPeriod": "10ms"}})
    (mount / "config").symlink_to("..data/config")
    node.config.unlink()
    node.config.symlink_to(mount / "config")
    first = node.start()
    first.wait_for("synced", first=True)
    contents = node.contents()
    assert "0x8000" not in contents
    newer = {"minSyncPeriod": "10ms", "iptables": {"masqueradeBit": 15}}
    config_map(mount, 2, {"apiVersion": V1ALPHA2, **newer})
    assert first.wait_for("configuration changed")["file"] == str(node.config)
    first.wait_for("stopped")
    assert first.process.wait(60) == EXIT_CHANGED
    assert node.contents() == contents, "rules stay until the successor has changed them"
    node.start().wait_for("synced", first=True)
    assert "0x8000" in node.contents()


def test_what_needs_root_is_done_apart(node: Node) -> None:
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    command = [sys.executable, "-m", "kproxy", "proxy", "--init-only", "--config", node.config]
    node.run("sh", "-c", f"echo 0 > {forward}")
    before = node.contents()
    with namespace.entered(node.name):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [one["value"] for one in told if one.get("key") == "net/ipv4/ip_forward"] == ["1"]
    assert told[-1]["msg"] == "initialised"
    assert node.run("cat", str(forward)).strip() == "1"
    assert node.contents() == before
