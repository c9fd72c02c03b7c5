"""The kernel's IPVS table, through generic netlink."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import bulk, netlink
from kproxy.kernel.attributes import Buffer
from kproxy.kernel.client import NetlinkClient
from kproxy.kernel.inet import Family
from kproxy.kernel.ipvs import proc, wire
from kproxy.kernel.ipvs.types import (
    DestinationEntry,
    Dump,
    Info,
    Operation,
    ServiceEntry,
    ServiceKey,
    ServiceTraffic,
    Timeouts,
    Traffic,
    describe,
    destinations_of,
    worst,
)

Answer = TypeVar("Answer")
_READ_SIZE = 65536
MANY = 2000
"""From so many services on procfs, which is quadratic, is slower than a call for each."""
IPV4_KEY = 7
"""Bytes of a key: protocol, address, port."""


class IPVS(NetlinkClient):
    """Virtual services of the network namespace in which it is first used. Not for two threads.

    Nothing is opened before the first call. Methods raise Unsupported if the kernel has no IPVS,
    and KernelError if it refuses. Contract of each: :class:`~kproxy.kernel.ipvs.types.IPVSClient`.
    """

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_GENERIC)
        self._genl_family: tuple[int, wire.Packer] | None = None
        self._readers = {family: wire.DestinationReader(family) for family in Family}

    def supported(self) -> str | None:
        """Return None, or in words why this kernel cannot do IPVS."""
        try:
            self.info()
        except KernelError as error:
            return f"IPVS cannot be used: {error}"
        except Unsupported as error:
            return str(error)
        return None

    def run(self, transaction: Sequence[Operation]) -> list[KernelError | None]:
        """Do all operations in order; return for each None or why it failed."""
        if not transaction:
            return []
        sock, _family_id, packer = self._ready()
        refused = sock.send_all(packer.messages(transaction, sock.next_sequence))
        if not refused:
            return [None] * len(transaction)
        return list(_results(transaction, refused))

    def dump(self, family: Family | None = None) -> Dump:
        """Return every virtual service known by address, with its real servers.

        ``family``: those of one IP family only. Of the other one real servers are not read if the
        table is large.
        """
        with bulk.collector_paused():
            everything = self._services()
            services = everything
            if family is not None:
                size = family.bits // 8 + 3
                services = [one for one in everything if len(one[0]) == size]
            if len(everything) >= MANY:
                return self._dump_many(services)
            listed = _listing()
            if listed is None or listed.keys() != {key for key, _config in everything}:
                # No procfs here, or somebody changed the table between the two readings.
                return self._dump_by_netlink(services)
            return {key: ServiceEntry(config, listed[key]) for key, config in services}

    def _dump_many(self, services: list[wire.Service]) -> Dump:
        """Return these services of a large table."""
        ipv4 = [(key, config) for key, config in services if len(key) == IPV4_KEY]
        listed = _listed_ipv4() if ipv4 else {}
        if listed is None or listed.keys() != {key for key, _config in ipv4}:
            return self._dump_by_netlink(services)
        return {
            **{key: ServiceEntry(config, listed[key]) for key, config in ipv4},
            **self._dump_by_netlink([one for one in services if len(one[0]) != IPV4_KEY]),
        }

    def read(self, services: Iterable[ServiceKey]) -> Dump:
        """Return these virtual services with their real servers, as far as they are there."""
        found: dict[ServiceKey, ServiceEntry] = {}
        for key in services:
            with contextlib.suppress(NotFound):
                told = self._service(key)
                if told is not None:
                    found.update(self._dump_by_netlink([told]))
        return found

    def traffic(self) -> Mapping[ServiceKey, ServiceTraffic]:
        """Return the counters of every virtual service and real server. Slower than a dump."""
        return {
            key: ServiceTraffic(
                traffic, {server: counted for server, _config, counted in self._destinations(key)}
            )
            for key, traffic in self._counted_services()
        }

    def timeouts(self) -> Timeouts:
        """Return the time-outs of connections."""
        return self._ask(wire.GET_CONFIG, wire.read_timeouts, "read IPVS time-outs")

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Set those time-outs that are not 0."""
        sock, _family_id, packer = self._ready()
        refused = sock.execute([timeouts], packer.pack_timeouts)
        for refusal in refused.values():
            raise netlink.kernel_error("set IPVS time-outs", refusal)

    def info(self) -> Info:
        """Return version and table size of the kernel's IPVS."""
        return self._ask(wire.GET_INFO, wire.read_info, "ask for IPVS")

    def close(self) -> None:
        """Give the socket back. The next call opens another one."""
        super().close()
        self._genl_family = None

    def _ready(self) -> tuple[netlink.NetlinkSocket, int, wire.Packer]:
        sock = self._open()
        if self._genl_family is None:
            try:
                family_id = netlink.generic_family(sock, wire.FAMILY_NAME)
            except NotFound as error:
                self.close()
                raise Unsupported(
                    "this kernel has no IPVS",
                    remedy="load the module ip_vs, or use a kernel that has it",
                ) from error
            except BaseException:
                self.close()
                raise
            self._genl_family = family_id, wire.Packer(family_id)
        return (sock, *self._genl_family)

    def _ask(self, command: int, parse: Callable[[Buffer, int, int], Answer], what: str) -> Answer:
        sock, family_id, _packer = self._ready()
        return sock.ask(family_id, wire.genl_header(command), parse, what)

    def _services(self) -> list[wire.Service]:
        sock, family_id, _packer = self._ready()
        read = wire.ServiceReader().read
        header = wire.genl_header(wire.GET_SERVICE)
        found = sock.dump(family_id, header, read, "list virtual services")
        return [service for service in found if service is not None]

    def _counted_services(self) -> list[tuple[ServiceKey, Traffic]]:
        reader = wire.ServiceReader()

        def read(buffer: Buffer, start: int, end: int) -> tuple[wire.Service | None, Traffic]:
            return reader.read(buffer, start, end), reader.read_traffic(buffer, start, end)

        sock, family_id, _packer = self._ready()
        header = wire.genl_header(wire.GET_SERVICE)
        found = sock.dump(family_id, header, read, "list virtual services")
        return [(service[0], traffic) for service, traffic in found if service is not None]

    def _service(self, key: ServiceKey) -> wire.Service | None:
        sock, family_id, packer = self._ready()
        request = wire.genl_header(wire.GET_SERVICE) + packer.service_nest(key)
        what = f"look for virtual service {key}"
        return sock.ask(family_id, request, wire.ServiceReader().read, what)

    def _destinations(self, key: ServiceKey) -> list[wire.Destination]:
        sock, family_id, packer = self._ready()
        request = wire.genl_header(wire.GET_DEST) + packer.service_nest(key)
        read = self._readers[key.family].read
        return sock.dump(family_id, request, read, f"list real servers of {key}")

    def _dump_by_netlink(self, services: list[wire.Service]) -> Dump:
        return {
            key: ServiceEntry(
                config,
                {
                    server: DestinationEntry(how, counted.stats)
                    for server, how, counted in self._destinations(key)
                },
            )
            for key, config in services
        }


def _results(
    transaction: Iterable[Operation], refused: Mapping[int, netlink.Refusal]
) -> Iterator[KernelError | None]:
    """Yield the result of each operation, some of which took several messages."""
    number = 0
    for operation in transaction:
        parts = destinations_of(operation)
        if number in refused:
            yield netlink.kernel_error(describe(operation), refused[number])
        else:
            yield worst(
                [
                    netlink.kernel_error(describe(part), refused[at])
                    for at, part in enumerate(parts, number + 1)
                    if at in refused
                ]
            )
        number += 1 + len(parts)


def _listing() -> dict[ServiceKey, proc.Destinations] | None:
    """Return what procfs lists, or None where it does not."""
    try:
        with Path(proc.PATH).open("rb", buffering=0) as file:
            return proc.parse(iter(partial(file.read, _READ_SIZE), b""))
    except (OSError, ValueError):
        return None


def _listed_ipv4() -> dict[ServiceKey, proc.Destinations] | None:
    """Return what the kernel lists of IPv4; None if it does not, or all changed."""
    from kproxy.kernel.ipvs import sockopt  # small tables need not wait for it

    try:
        return sockopt.read()
    except (KernelError, OSError):
        return None
