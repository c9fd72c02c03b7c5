"""In what the kernel differs, in words for a user. Loaded only when somebody asks. Pure."""

from collections.abc import Iterable, Iterator

from kproxy.backends.base import Deviation, Difference
from kproxy.backends.ipvs.plan import Changes
from kproxy.backends.ipvs.render import DESTINATION, DEVICE, DRAINING, Place
from kproxy.backends.ipvs.wanted import Wanted
from kproxy.desired.model import ServicePortName
from kproxy.kernel import inet
from kproxy.kernel.ipset.types import Entry
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    ServiceConfig,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
)


def of_changes(changes: Changes, wanted: Wanted) -> Iterator[Difference]:
    """Yield the differences of virtual servers, addresses and sets."""
    for key, (have, want) in sorted(changes.services.items(), key=lambda item: item[0]):
        yield from _of_service(key, have, want, wanted.owner(key))
    if changes.device_down:
        yield Difference(
            deviation=Deviation.DIFFERENT, kind="device", name=DEVICE, want="up", have="down"
        )
    for deviation, addresses in (
        (Deviation.MISSING, changes.addresses_added),
        (Deviation.UNEXPECTED, changes.addresses_removed),
    ):
        for address in map(inet.unpacked, sorted(addresses)):
            yield _one(deviation, "address", f"{DEVICE} {address}", "bound")
    for name in changes.sets:
        yield _one(Deviation.MISSING, "ipset", name, "a set")
    for deviation, members in (
        (Deviation.MISSING, changes.members_added),
        (Deviation.UNEXPECTED, changes.members_removed),
    ):
        for name, entry in sorted(members, key=lambda member: (member[0], str(member[1]))):
            owner = _owner(entry, wanted)
            yield _one(deviation, "ipset entry", f"{name} {entry}", "an entry", owner)


def of_switches(wrong: Iterable[tuple[str, str, str]]) -> Iterator[Difference]:
    """Yield the differences of switches, each given as name, wanted and actual value."""
    for name, want, have in wrong:
        yield Difference(
            deviation=Deviation.DIFFERENT, kind="sysctl", name=name, want=want, have=have
        )


def _of_service(
    key: ServiceKey,
    have: ServiceEntry | None,
    want: Place | None,
    owner: ServicePortName | None,
) -> Iterator[Difference]:
    name = str(key)
    if want is None:
        if have is not None:
            text = _service(have.config, len(have.destinations))
            yield _one(Deviation.UNEXPECTED, "virtual server", name, text)
        return
    if have is None:
        text = _service(want.config, len(want.real_servers))
        yield _one(Deviation.MISSING, "virtual server", name, text, owner)
        return
    if have.config != want.config:
        yield Difference(
            deviation=Deviation.DIFFERENT,
            kind="virtual server",
            name=name,
            want=_service(want.config),
            have=_service(have.config),
            service=owner,
        )
    yield from _of_real_servers(key, have, want, owner)


def _of_real_servers(
    key: ServiceKey, have: ServiceEntry, want: Place, owner: ServicePortName | None
) -> Iterator[Difference]:
    for destination in sorted(want.real_servers):
        name, found = f"{key} {destination}", have.destinations.get(destination)
        if found is None:
            yield _one(Deviation.MISSING, "real server", name, _server(DESTINATION), owner)
        elif found.config != DESTINATION:
            yield Difference(
                deviation=Deviation.DIFFERENT,
                kind="real server",
                name=name,
                want=_server(DESTINATION),
                have=_server(found.config),
                service=owner,
            )
    for destination in sorted(have.destinations.keys() - set(want.real_servers)):
        found = have.destinations[destination]
        busy = found.stats.active + found.stats.inactive
        drains = found.config.weight == DRAINING.weight and busy
        if not drains or key.protocol is inet.Protocol.UDP:
            text = _server(found.config)
            yield _one(Deviation.UNEXPECTED, "real server", f"{key} {destination}", text, owner)


def _one(
    deviation: Deviation, kind: str, name: str, what: str, owner: ServicePortName | None = None
) -> Difference:
    missing = deviation is Deviation.MISSING
    return Difference(
        deviation=deviation,
        kind=kind,
        name=name,
        want=what if missing else "",
        have="" if missing else what,
        service=owner,
    )


def _owner(entry: Entry, wanted: Wanted) -> ServicePortName | None:
    address, protocol, port = entry.address, entry.protocol, entry.port
    if protocol is None or port is None or not isinstance(address, inet.IPAddress):
        return None
    return wanted.owner(ServiceKey(protocol, address, port))


def _service(config: ServiceConfig, servers: int | None = None) -> str:
    text = config.scheduler
    if config.flags & ServiceFlags.PERSISTENT:
        text += f" persistent {config.timeout}"
    if config.netmask is not None:
        text += f" netmask /{config.netmask}"
    if other := config.flags & ~ServiceFlags.PERSISTENT:
        text += f" flags {int(other):#x}"
    return text if servers is None else f"{text}, {servers} real servers"


def _server(config: DestinationConfig) -> str:
    return f"{config.forwarding} weight {config.weight}"
