"""What strangers do to a node behind its proxy's back, and how a proxy goes bad while it lives.

Everything is done to the hit node alone, with the node's own means; what is to be undone later is
an nftables table of the stranger's own.
"""

import contextlib
from ipaddress import ip_address
from pathlib import Path

from kproxy import errors
from kproxy.api import kinds
from kproxy.backends.nftables import layout
from kproxy.kernel import inet
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import DelService, ServiceKey, SetDestination
from kproxy.lab.chain import shop
from kproxy.lab.chain.stage import ChainStage
from kproxy.lab.site import API_ADDRESS, API_PORT
from kproxy.lab.whole.roles import Role
from netns.errors import CommandFailed

TABLE = "stranger"
_ACK_BYTES = 52
"""A segment without data, with time stamps: what keeps a connection alive is let through."""
_LAST_OF_RANGE = 250
"""No pod has this number: the kubelet gives addresses from 2 on."""
_EVERY_FLOW_S = 1.0
"""In which every flow sends a packet."""
_DELETE_RULES = {
    "nftables": ["nft", "delete", "table", "ip", layout.TABLE],
    "iptables": ["iptables", "-w", "-t", "nat", "-F", "KUBE-SERVICES"],
}


def hold_watches(stage: ChainStage) -> None:
    """Let no data through on the proxy's connections to the API, but what keeps them alive.

    So neither side notices; connections made later are not concerned.
    """
    ports = ", ".join(map(str, sorted(_ports_to_api(stage))))
    if not ports:
        raise errors.MeasurementError(f"the proxy on {stage.hit} has no connection to the API")
    rule = (
        f"ip saddr {API_ADDRESS} tcp sport {API_PORT} tcp dport {{ {ports} }}"
        f" ip length > {_ACK_BYTES} drop"
    )
    _make_table(stage, f"chain in {{ type filter hook input priority -300; {rule}; }}")


def release(stage: ChainStage) -> None:
    """Take the stranger's table away; absent is fine."""
    stage.cluster.lab.host(stage.hit).run(["nft", "delete", "table", "ip", TABLE], check=False)


def zero_weights(stage: ChainStage) -> None:
    """Set the weight of every endpoint of the shop's TCP port to 0, as somebody who drains."""
    with stage.cluster.lab.host(stage.hit).entered(), contextlib.closing(IPVS()) as ipvs:
        key = ServiceKey(inet.Protocol.TCP, ip_address(_address(stage)), shop.SERVICE_TCP_PORT)
        entry = ipvs.read([key])[key]
        changes = [
            SetDestination(key, name, found.config._replace(weight=0))
            for name, found in entry.destinations.items()
        ]
        _check(ipvs.run(changes))


def delete_rules(stage: ChainStage) -> None:
    """Delete what the proxy has written: its virtual servers, table or chain."""
    mode = stage.cluster.site.file.mode
    if mode != "ipvs":
        _run(stage, _DELETE_RULES[mode])
        return
    with stage.cluster.lab.host(stage.hit).entered(), contextlib.closing(IPVS()) as ipvs:
        _check(ipvs.run([DelService(key) for key in ipvs.dump()]))


def poison_flows(stage: ChainStage) -> None:
    """Have the UDP flows that the shop has now tracked to an address that nobody has.

    As a proxy leaves it that missed an endpoint's end: for a moment a rule sends them there, and
    what has been translated once stays so for as long as packets come.
    """
    with stage.cluster.lab.host(stage.hit).entered(), contextlib.closing(Conntrack()) as table:
        flows = [flow for flow in table.flows(inet.Family.IPV4) if _is_shop(stage, flow)]
        ports = ", ".join(sorted({str(flow.source_port) for flow in flows}))
        if not flows:
            raise errors.MeasurementError(f"no UDP flow of the shop is tracked on {stage.hit}")
        service = f"ip daddr {_address(stage)} udp dport {shop.UDP_PORT} udp sport {{ {ports} }}"
        chain = "type nat hook prerouting priority -150;"
        to = f"{dead_address(stage)}:{shop.UDP_PORT}"
        _make_table(stage, f"chain pre {{ {chain} {service} dnat to {to}; }}")
        try:
            table.delete(flows)
            # Of some nothing more comes, so nobody can tell when all are tracked anew.
            stage.until(lambda: bool(poisoned(stage)), "a flow to be tracked anew")
            stage.sleep(_EVERY_FLOW_S)
        finally:
            release(stage)


def poisoned(stage: ChainStage) -> list[Flow]:
    """Return the flows of the shop that lead to nobody."""
    dead = dead_address(stage)
    with stage.cluster.lab.host(stage.hit).entered(), contextlib.closing(Conntrack()) as table:
        flows = table.flows(inet.Family.IPV4)
    return [flow for flow in flows if _is_shop(stage, flow) and str(flow.reply_source) == dead]


def dead_address(stage: ChainStage) -> str:
    """Return an address of the other node's pods that no pod has."""
    other = stage.cluster.site.node(stage.nodes[1])
    return str(other.pod_cidr.network_address + _LAST_OF_RANGE)


def _is_shop(stage: ChainStage, flow: Flow) -> bool:
    place = (str(flow.destination), flow.destination_port)
    return place == (_address(stage), shop.UDP_PORT)


def _address(stage: ChainStage) -> str:
    service = stage.cluster.api.get(kinds.SERVICE, shop.NAMESPACE, shop.SHOP)
    if service is None:
        raise errors.MeasurementError(f"there is no Service {shop.SHOP}")
    return str(service["spec"]["clusterIP"])


def _make_table(stage: ChainStage, chain: str) -> None:
    _run(stage, ["nft", "-f", "-"], f"table ip {TABLE} {{ {chain}; }}\n")


def _run(stage: ChainStage, command: list[str], text: str | None = None) -> None:
    try:
        stage.cluster.lab.host(stage.hit).run(command, input=text)
    except CommandFailed as error:
        raise errors.MeasurementError(str(error)) from None


def _check(results: list[errors.KernelError | None]) -> None:
    for error in results:
        if error is not None:
            raise error


def _ports_to_api(stage: ChainStage) -> set[int]:
    """Return the local ports of the proxy's connections to the API."""
    process = stage.cluster.processes.get(stage.hit, Role.PROXY)
    place = Path(f"/proc/{process.pid}")
    sockets = set()
    for descriptor in (place / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed just now
            sockets.add(str(descriptor.readlink()))
    ports = set()
    for line in (place / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        peer = int(fields[2].rpartition(":")[2], 16)
        if peer == API_PORT and f"socket:[{fields[9]}]" in sockets:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
