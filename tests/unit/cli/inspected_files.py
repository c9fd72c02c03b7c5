"""Files of objects and a pretended kernel, for ``kproxy state``, ``diff`` and ``explain``."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kproxy.backends import base
from kproxy.backends.base import Deviation, Difference
from kproxy.cli import main
from kproxy.desired.model import Family, Protocol, ServicePortName, State
from kproxy.errors import KernelError

MANIFEST = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: node1, labels: {topology.kubernetes.io/zone: zone-a}}
  spec: {podCIDRs: [10.128.0.0/24]}
  status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: demo}
  spec:
    clusterIP: 10.96.0.10
    clusterIPs: [10.96.0.10]
    sessionAffinity: ClientIP
    ports: [{name: http, port: 80}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: web-abc, namespace: demo, labels: {kubernetes.io/service-name: web}}
  addressType: IPv4
  endpoints:
  - {addresses: [10.128.0.5], nodeName: node1, conditions: {ready: true}}
  - {addresses: [10.128.1.6], nodeName: node2, conditions: {ready: true}}
  - {addresses: [10.128.1.7], nodeName: node2, conditions: {ready: false}}
  ports: [{name: http, port: 8080}]
- apiVersion: v1
  kind: Service
  metadata: {name: names, namespace: demo}
  spec: {clusterIP: None, ports: [{port: 80}]}
- apiVersion: v1
  kind: Service
  metadata: {name: broken, namespace: demo}
  spec: {clusterIP: 10.96.0.11, clusterIPs: [10.96.0.11], ports: [{port: 99999}]}
- apiVersion: networking.k8s.io/v1
  kind: ServiceCIDR
  metadata: {name: kubernetes}
  spec: {cidrs: [10.96.0.0/16]}
"""
WEB = ServicePortName("demo", "web", "http", Protocol.TCP)
MISSING = Difference(
    deviation=Deviation.MISSING,
    kind="virtual server",
    name="tcp 10.96.0.10:80",
    want="rr",
    service=WEB,
)
FOREIGN = Difference(
    deviation=Deviation.UNEXPECTED, kind="virtual server", name="tcp 10.96.0.99:80", have="wlc"
)


class PretendedBackend:
    """A backend on a kernel that is as a test wants it."""

    name: ClassVar[str] = "pretended"
    found: ClassVar[Sequence[Difference]] = ()
    failure: ClassVar[KernelError | None] = None
    in_use: ClassVar[frozenset[str]] = frozenset()
    closed: ClassVar[int] = 0

    def __init__(self, mode: str, family: Family) -> None:
        self._mode = mode
        self._family = family

    def supported(self) -> str | None:
        return None

    def left_over(self) -> bool:
        return self._mode in self.in_use and self._family is Family.IPV4

    def differences(self, want: State) -> Sequence[Difference]:
        if self.failure is not None:
            raise self.failure
        return self.found if want.services else ()

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> type[PretendedBackend]:
    class Backend(PretendedBackend):
        pass

    monkeypatch.setattr(base, "loader", lambda mode: lambda family, options: Backend(mode, family))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("kproxy.kernel.links.client.Links.exists", lambda self, name: True)
    monkeypatch.setattr(
        "kproxy.kernel.links.own.own_addresses", lambda without: {4: ("192.0.2.1",)}
    )
    return Backend


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "objects.yaml"
    path.write_text(MANIFEST)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["kproxy", *map(str, words)])
    return main.main()


def answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str | Path
) -> tuple[int, Any]:
    command, *others = words
    code = run(monkeypatch, command, "--json", *others)
    return code, json.loads(capsys.readouterr().out)
