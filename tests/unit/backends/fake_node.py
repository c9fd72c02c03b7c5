"""All fakes of one node together. Backends come and go, the kernel stays."""

from typing import Any

from kproxy.backends import chains
from kproxy.backends.base import FAMILIES, Options
from kproxy.backends.iptables import backend as iptables_backend
from kproxy.backends.ipvs import backend as ipvs_backend
from kproxy.backends.ipvs import render as ipvs_render
from kproxy.backends.nftables import backend as nftables_backend
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.ipset.fake import FakeIpset
from kproxy.kernel.iptables.fake import FakeIptables
from kproxy.kernel.ipvs.fake import FakeIPVS
from kproxy.kernel.links.fake import FakeLinks
from kproxy.kernel.nft import show
from kproxy.kernel.nft.fake import FakeNft
from kproxy.kernel.sysctl import FakeSysctl

SYSCTLS = {
    "net/ipv4/vs/conntrack": "0",
    "net/ipv4/vs/expire_nodest_conn": "0",
    "net/ipv4/vs/expire_quiescent_template": "0",
    "net/ipv4/vs/conn_reuse_mode": "1",
    "net/ipv4/conf/all/arp_ignore": "0",
    "net/ipv4/conf/all/arp_announce": "0",
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/all/route_localnet": "0",
    "net/ipv6/conf/all/forwarding": "0",
}


class FakeNode:
    """A kernel, and backends for it."""

    def __init__(self, release: tuple[int, int] = (6, 1)) -> None:
        self.release = release
        self.ipvs = FakeIPVS()
        self.ipset = FakeIpset()
        self.iptables = FakeIptables()
        self.ip6tables = FakeIptables()
        self.nft = {family: FakeNft(FAMILIES[family]) for family in Family}
        self.links = FakeLinks()
        self.conntrack = FakeConntrack()
        self.sysctl = FakeSysctl(SYSCTLS)

    def backend(
        self, mode: str, options: Options | None = None, family: Family = Family.IPV4
    ) -> Any:
        """Return a new backend, as a restarted proxy would make one."""
        iptables = self.iptables if family is Family.IPV4 else self.ip6tables
        if mode == "iptables":
            return iptables_backend.Backend(
                iptables_backend.Kernel(
                    iptables=iptables, conntrack=self.conntrack, sysctl=self.sysctl
                ),
                FAMILIES[family],
                options,
            )
        if mode == "nftables":
            return nftables_backend.Backend(
                nftables_backend.Kernel(
                    nft=self.nft[family], conntrack=self.conntrack, sysctl=self.sysctl
                ),
                FAMILIES[family],
                options or Options(),
            )
        return ipvs_backend.Backend(
            ipvs_backend.Kernel(
                ipvs=self.ipvs,
                ipset=self.ipset,
                iptables=iptables,
                links=self.links,
                conntrack=self.conntrack,
                sysctl=self.sysctl,
                release=self.release,
            ),
            FAMILIES[family],
            options or Options(),
        )

    def contents(self) -> dict[str, Any]:
        """Return everything that packets meet."""
        device = ipvs_render.DEVICE
        has_device = self.links.exists(device)
        return {
            "ipvs": self.ipvs.dump(),
            "sets": {name: one.entries for name, one in self.ipset.dump().items()},
            "rules": self.iptables.save(*chains.TABLES),
            "rules6": self.ip6tables.save(*chains.TABLES),
            "nft": {family: self._nft_table(family) for family in Family},
            "addresses": self.links.addresses(device) if has_device else frozenset(),
            "sysctl": dict(self.sysctl.values),
        }

    def _nft_table(self, family: Family) -> Any:
        """Return a table in words; None if there is none."""
        table = self.nft[family].read()
        if table is None:
            return None
        elements = {
            name: {
                show.fields(table.sets[name].key, key): show.data(table.sets[name], data)
                for key, data in one.items()
            }
            for name, one in table.elements.items()
        }
        return dict(table.sets), dict(table.chains), elements

    def weights(self) -> dict[str, int]:
        """Return the weights of all real servers."""
        return {
            f"{service} {server}": entry.config.weight
            for service, one in self.ipvs.dump().items()
            for server, entry in one.destinations.items()
        }


def wanted(*services: ServiceState) -> State:
    """Return a state of these services."""
    return State(
        family=Family.IPV4,
        services={one.service.name: one for one in services},
        cluster_cidrs=(Prefix("10.128.0.0/9"),),
    )


def web(
    *addresses: str, protocol: Protocol = Protocol.TCP, ip: str = "10.96.0.10", port: int = 80
) -> ServiceState:
    """Return a service with endpoints at these addresses, port 8080."""
    endpoints = tuple(Endpoint(address=Address(one), port=8080) for one in addresses)
    return ServiceState(
        service=ServicePort(
            name=ServicePortName("demo", "web", protocol.lower(), protocol),
            cluster_ip=Address(ip),
            port=port,
        ),
        cluster=endpoints,
        known=endpoints,
        anywhere=bool(endpoints),
    )
