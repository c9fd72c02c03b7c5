"""In what a table differs from the wanted one, in words for a user. Pure."""

from collections.abc import Iterator, Mapping

from kproxy.backends.base import Deviation, Difference
from kproxy.backends.nftables import plan
from kproxy.backends.nftables.fragments import PROTOCOLS, pack_address, pack_port
from kproxy.backends.nftables.render import ABSENT, Before, Delta, Tables, compare
from kproxy.desired.model import ServicePortName, State
from kproxy.kernel.nft import show
from kproxy.kernel.nft.types import Chain, Data, SetSpec, Table

Owners = Mapping[bytes, ServicePortName]


def between(table: Table | None, want: Tables, state: State) -> list[Difference]:
    """Return what a sync would add, change and remove."""
    if table is None:
        table = Table()
    have = plan.seen(table)
    delta = compare(have, want)
    owners = _owners(state)
    found = [
        Difference(deviation=Deviation.UNEXPECTED, kind="other object", name=name, have="there")
        for name in table.unknown
    ]
    found += _sets(delta, want)
    found += _chains(delta, have, want)
    found += _elements(delta, have, want, owners)
    return found


def _sets(delta: Delta, want: Tables) -> Iterator[Difference]:
    for name, before in sorted(delta.sets.items()):
        after = want.sets.get(name)
        yield Difference(
            deviation=_deviation(before is not None, after is not None),
            kind="set",
            name=name,
            want=show.spec(after) if after else "",
            have=show.spec(before) if before else "",
        )


def _chains(delta: Delta, have: Tables, want: Tables) -> Iterator[Difference]:
    for name, before in sorted(delta.chains.items()):
        after = want.chains.get(name)
        yield Difference(
            deviation=_deviation(before is not None, after is not None),
            kind="chain",
            name=name,
            want=_text(after, want.sets),
            have=_text(before, have.sets),
        )


def _text(chain: Chain | None, sets: Mapping[str, SetSpec]) -> str:
    return "; ".join(show.chain(chain, sets)) if chain is not None else ""


def _elements(delta: Delta, have: Tables, want: Tables, owners: Owners) -> Iterator[Difference]:
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
                service=_owner(key, owners),
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


def _owners(state: State) -> Owners:
    """Return whose each portal is, by its key."""
    found: dict[bytes, ServicePortName] = {}
    for name in sorted(state.services):
        service = state.services[name].service
        protocol = PROTOCOLS[service.protocol]
        places = (service.cluster_ip, *service.external_ips, *service.load_balancer_vips)
        for address in places:
            found.setdefault(protocol + pack_address(address) + pack_port(service.port), name)
        if service.node_port:
            found.setdefault(protocol + pack_port(service.node_port), name)
    return found


def _owner(key: bytes, owners: Owners) -> ServicePortName | None:
    """Return whose an element is: its key is that of a portal, or begins with it."""
    lengths = {len(one) for one in owners}
    return next(
        (owners[key[:end]] for end in sorted(lengths, reverse=True) if key[:end] in owners), None
    )
