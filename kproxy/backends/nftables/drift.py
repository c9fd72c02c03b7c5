"""In what a table differs from the wanted one, in words for a user. Pure."""

from collections.abc import Iterator, Mapping

from kproxy.backends.base import Deviation, Difference
from kproxy.backends.nftables import layout, plan
from kproxy.backends.nftables.fragments import (
    PROTOCOLS,
    pack_address,
    pack_port,
    sticky_place,
    sticky_place_of,
)
from kproxy.backends.nftables.render import ABSENT, Before, Delta, Tables, compare
from kproxy.desired.model import ServicePortName, State
from kproxy.kernel.nft import show
from kproxy.kernel.nft.types import Chain, Data, Field, SetSpec, Table, padded

_BY_NODE_PORT = (
    layout.SERVICE_NODEPORTS,
    layout.NO_ENDPOINT_NODEPORTS,
    layout.NODEPORT_ENDPOINTS,
)
_BY_POD_OR_NODE = (layout.HAIRPIN, layout.NODEPORT_IPS)
_NODE_PORT_LENGTH = padded((Field.PROTOCOL, Field.PORT))


class _Owners:
    """Whose what is, by where it is or by its name."""

    def __init__(self, state: State) -> None:
        self._places: dict[bytes, ServicePortName] = {}
        self._node_ports: dict[bytes, ServicePortName] = {}
        self._cluster_ips: dict[bytes, ServicePortName] = {}
        self._names: dict[str, ServicePortName] = {}
        for name in sorted(state.services):
            service = state.services[name].service
            protocol, port = PROTOCOLS[service.protocol], pack_port(service.port)
            cluster_ip = pack_address(service.cluster_ip)
            others = map(pack_address, (*service.external_ips, *service.load_balancer_vips))
            for address in (cluster_ip, *others):
                self._places.setdefault(protocol + address + port, name)
            if service.node_port:
                self._node_ports.setdefault(protocol + pack_port(service.node_port), name)
            self._cluster_ips.setdefault(cluster_ip, name)
            self._names.setdefault(sticky_place(service), name)
        place = (Field.PROTOCOL, layout.WORDS[state.family].address, Field.PORT)
        self._length = padded(place)

    def of_element(self, where: str, key: bytes) -> ServicePortName | None:
        """Return whose an element of a set is: its key begins with the way to a service port."""
        if where in _BY_POD_OR_NODE:
            return None
        if where == layout.CLUSTER_IPS:
            return self._cluster_ips.get(key)
        if where in _BY_NODE_PORT:
            return self._node_ports.get(key[:_NODE_PORT_LENGTH])
        return self._places.get(key[: self._length])

    def of_name(self, name: str) -> ServicePortName | None:
        """Return whose a chain or set is, if it is one service port's own."""
        return self._names.get(sticky_place_of(name))


def between(table: Table | None, want: Tables, state: State) -> list[Difference]:
    """Return what a sync would add, change and remove."""
    if table is None:
        table = Table()
    have = plan.seen(table)
    delta = compare(have, want)
    owners = _Owners(state)
    found = [
        Difference(deviation=Deviation.UNEXPECTED, kind="other object", name=name, have="there")
        for name in table.unknown
    ]
    found += _sets(delta, want, owners)
    found += _chains(delta, have, want, owners)
    found += _elements(delta, have, want, owners)
    return found


def _sets(delta: Delta, want: Tables, owners: _Owners) -> Iterator[Difference]:
    for name, before in sorted(delta.sets.items()):
        after = want.sets.get(name)
        yield Difference(
            deviation=_deviation(before is not None, after is not None),
            kind="set",
            name=name,
            want=show.spec(after) if after else "",
            have=show.spec(before) if before else "",
            service=owners.of_name(name),
        )


def _chains(delta: Delta, have: Tables, want: Tables, owners: _Owners) -> Iterator[Difference]:
    for name, before in sorted(delta.chains.items()):
        after = want.chains.get(name)
        yield Difference(
            deviation=_deviation(before is not None, after is not None),
            kind="chain",
            name=name,
            want=_text(after, want.sets),
            have=_text(before, have.sets),
            service=owners.of_name(name),
        )


def _text(chain: Chain | None, sets: Mapping[str, SetSpec]) -> str:
    return "; ".join(show.chain(chain, sets)) if chain is not None else ""


def _elements(delta: Delta, have: Tables, want: Tables, owners: _Owners) -> Iterator[Difference]:
    for name, differing in sorted(delta.elements.items()):
        spec = want.sets[name]
        for key, before in differing.items():
            after: Before = want.elements[name].get(key, ABSENT)
            yield Difference(
                deviation=_deviation(before is not ABSENT, after is not ABSENT),
                kind="map element" if spec.data or spec.verdicts else "set element",
                name=f"{name} {show.fields(spec.key, key)}",
                want=_data(spec, after),
                have=_data(spec, before),
                service=owners.of_element(name, key),
            )


def _data(spec: SetSpec, data: Before) -> str:
    if data is ABSENT:
        return ""
    assert isinstance(data, Data)
    return show.data(spec, data)


def _deviation(was: bool, wanted: bool) -> Deviation:
    if was and wanted:
        return Deviation.DIFFERENT
    return Deviation.MISSING if wanted else Deviation.UNEXPECTED
