"""An IPVS table in memory that refuses what the kernel refuses, with the same errno.

The contract suite runs on this and on the kernel. Rules are the kernel's (seen on 6.1), not
ipvsadm's, which forbids more.
"""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kproxy.errors import KernelError
from kproxy.kernel.inet import Family
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DelDestination,
    DelService,
    DestinationConfig,
    DestinationEntry,
    DestinationKey,
    DestinationStats,
    DestinationTraffic,
    Dump,
    Forwarding,
    Info,
    Operation,
    ServiceConfig,
    ServiceEntry,
    ServiceKey,
    ServiceTraffic,
    SetDestination,
    SetService,
    Timeouts,
    Traffic,
    describe,
    destinations_of,
    worst,
)
from kproxy.kernel.netlink import Refusal, kernel_error

SCHEDULERS = frozenset(
    ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh")
)
_SCHEDULER_LENGTH_MAX = 15
_WEIGHT_MAX = 0x7FFFFFFF


class FakeIPVS:
    """Implements :class:`~kproxy.kernel.ipvs.types.IPVSClient`.

    Faults to order: ``fail_write[n] = errno`` makes the n-th operation from now (0 is the next)
    fail; ``unsupported`` is the answer of :meth:`supported`. ``written`` holds every operation
    that was tried, so that a test can show that nothing was done.
    """

    def __init__(self) -> None:
        self.unsupported: str | None = None
        self.fail_write: dict[int, int] = {}
        self.written: list[Operation] = []
        self.connections: dict[tuple[ServiceKey, DestinationKey], DestinationStats] = {}
        self._table: dict[
            ServiceKey, tuple[ServiceConfig, dict[DestinationKey, DestinationConfig]]
        ] = {}
        self._timeouts = Timeouts(900, 120, 300)
        self._doers: dict[type, Callable[[Any], None]] = {
            AddService: self._add_service,
            SetService: self._set_service,
            DelService: self._del_service,
            AddDestination: self._add_destination,
            SetDestination: self._set_destination,
            DelDestination: self._del_destination,
        }

    def supported(self) -> str | None:
        """Return what ``unsupported`` says."""
        return self.unsupported

    def run(self, transaction: Sequence[Operation]) -> list[KernelError | None]:
        """Do all operations in order; return for each None or why it failed."""
        results: list[KernelError | None] = []
        faults = self.fail_write
        count = len(transaction)
        self.fail_write = {at - count: code for at, code in faults.items() if at >= count}
        for index, operation in enumerate(transaction):
            self.written.append(operation)
            error = self._do(operation, faults.get(index, 0))
            if index not in faults:
                refused = [self._do(part) for part in destinations_of(operation)]
                error = error or worst([one for one in refused if one is not None])
            results.append(error)
        return results

    def _do(self, operation: Operation, fault: int = 0) -> KernelError | None:
        try:
            if fault:
                raise _Refused(fault)
            self._doers[type(operation)](operation)
        except _Refused as refused:
            return kernel_error(describe(operation), Refusal(refused.errno))
        return None

    def dump(self, family: Family | None = None) -> Dump:
        """Return every virtual service with its real servers, of one IP family or both."""
        return self.read([key for key in self._table if family in (None, key.family)])

    def read(self, services: Iterable[ServiceKey]) -> Dump:
        """Return these virtual services with their real servers, as far as they are there."""
        return {
            key: ServiceEntry(
                config,
                {
                    server: DestinationEntry(how, self._stats(key, server))
                    for server, how in servers.items()
                },
            )
            for key in services
            if key in self._table
            for config, servers in [self._table[key]]
        }

    def traffic(self) -> Mapping[ServiceKey, ServiceTraffic]:
        """Return counters, all 0: nothing passes here."""
        return {
            key: ServiceTraffic(
                Traffic(),
                {
                    server: DestinationTraffic(Traffic(), self._stats(key, server), 0)
                    for server in servers
                },
            )
            for key, (_config, servers) in self._table.items()
        }

    def timeouts(self) -> Timeouts:
        """Return the time-outs; at first the kernel's own."""
        return self._timeouts

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Set those time-outs that are not 0."""
        given = {name: getattr(timeouts, name) for name in ("tcp", "tcp_fin", "udp")}
        if any(not 0 <= value <= _WEIGHT_MAX // 1000 for value in given.values()):
            raise kernel_error("set IPVS time-outs", Refusal(errno.EINVAL))
        self._timeouts = replace(
            self._timeouts, **{name: value for name, value in given.items() if value}
        )

    def info(self) -> Info:
        """Return what a kernel of today says."""
        return Info((1, 2, 1), 4096)

    def close(self) -> None:
        """Do nothing: the table outlives its clients, as the kernel's does."""

    def _stats(self, service: ServiceKey, server: DestinationKey) -> DestinationStats:
        return self.connections.get((service, server), DestinationStats())

    def _servers(self, service: ServiceKey) -> dict[DestinationKey, DestinationConfig]:
        if service not in self._table:
            raise _Refused(errno.ESRCH)
        return self._table[service][1]

    def _add_service(self, op: AddService) -> None:
        _check_form(op.config)
        if op.service in self._table:
            raise _Refused(errno.EEXIST)
        _check_service(op.service, op.config)
        self._table[op.service] = op.config, {}

    def _set_service(self, op: SetService) -> None:
        _check_form(op.config)
        servers = self._servers(op.service)
        _check_service(op.service, op.config)
        self._table[op.service] = op.config, servers

    def _del_service(self, op: DelService) -> None:
        self._servers(op.service)
        del self._table[op.service]

    def _add_destination(self, op: AddDestination) -> None:
        servers = self._servers(op.service)
        _check_weight(op.config)
        _check_families(op.service, op.destination, op.config)
        if op.destination in servers:
            raise _Refused(errno.EEXIST)
        _check_address(op.destination)
        servers[op.destination] = op.config

    def _set_destination(self, op: SetDestination) -> None:
        servers = self._servers(op.service)
        _check_weight(op.config)
        _check_families(op.service, op.destination, op.config)
        if op.destination not in servers:
            raise _Refused(errno.ENOENT)
        servers[op.destination] = op.config

    def _del_destination(self, op: DelDestination) -> None:
        servers = self._servers(op.service)
        if op.destination not in servers:
            raise _Refused(errno.ENOENT)
        del servers[op.destination]


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.errno = code


def _check_form(config: ServiceConfig) -> None:
    """What the kernel looks at before it looks for the service."""
    if len(config.scheduler) > _SCHEDULER_LENGTH_MAX:
        raise _Refused(errno.EINVAL)


def _check_service(key: ServiceKey, config: ServiceConfig) -> None:
    if config.scheduler not in SCHEDULERS:
        raise _Refused(errno.ENOENT)
    if key.address.version == 6 and config.netmask is not None and not 1 <= config.netmask <= 128:
        raise _Refused(errno.EINVAL)


def _check_weight(config: DestinationConfig) -> None:
    if not 0 <= config.weight <= _WEIGHT_MAX:
        raise _Refused(errno.ERANGE)


def _check_families(service: ServiceKey, key: DestinationKey, config: DestinationConfig) -> None:
    """Only a tunnel leads from one IP version to the other."""
    mixed = service.address.version != key.address.version
    if mixed and config.forwarding is not Forwarding.TUNNEL:
        raise _Refused(errno.EINVAL)


def _check_address(key: DestinationKey) -> None:
    address = key.address
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise _Refused(errno.EINVAL)
    if address.version == 6 and address.is_link_local:
        raise _Refused(errno.EINVAL)
