"""What IPVS counts, as metrics: kube-proxy has none of it.

Read from the kernel when somebody asks. Where there are very many real servers, ``/metrics`` tells
of virtual servers only, because a scrape of hundreds of thousands of lines would be refused;
``/metrics/ipvs`` has them all.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from kproxy.backends.udpflows import places
from kproxy.desired.model import State
from kproxy.errors import KernelError, Unsupported
from kproxy.exposition import Family, Kind, Sample
from kproxy.kernel.ipvs.types import (
    DestinationKey,
    Dump,
    IPVSClient,
    ServiceKey,
    ServiceTraffic,
    Traffic,
)
from kproxy.logs import Log

REAL_SERVERS_MOST = 5000
"""Real servers that ``/metrics`` has at most."""

Labels = dict[str, str]
Counted = list[tuple[Labels, Traffic]]


class IPVSMetrics:
    """Reads counters by a client of its own, made for each scrape: scrapes come in any thread.

    ``states`` returns the newest wanted states, for the names of services.
    """

    def __init__(
        self,
        make: Callable[[], IPVSClient],
        states: Callable[[], Iterable[State]],
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._states = states
        self._log = log
        self._clock = clock
        self._drained_since: dict[tuple[ServiceKey, DestinationKey], float] = {}

    def few(self) -> Iterable[Family]:
        """Return everything, or of too many real servers only those with weight 0."""
        return self._collect(REAL_SERVERS_MOST)

    def all(self) -> Iterable[Family]:
        """Return everything."""
        return self._collect(None)

    def _collect(self, most: int | None) -> Iterable[Family]:
        client = self._make()
        try:
            table, traffic = client.dump(), client.traffic()
        except (KernelError, Unsupported) as error:
            self._log.warning("reading IPVS counters failed", error=str(error))
            return []
        finally:
            client.close()
        names = _names(tuple(self._states()))  # at once: the main thread may add one
        servers = [(key, server) for key, entry in table.items() for server in entry.destinations]
        draining = self._draining(table)
        told = servers if most is None or len(servers) <= most else list(draining)
        return [
            *_virtual(traffic, names),
            *_real(table, traffic, told, names),
            Family(
                "kproxy_ipvs_draining_seconds",
                Kind.GAUGE,
                "For how long a real server has had weight 0, as far as metrics were asked for.",
                [Sample(_labels(*at, names), age) for at, age in draining.items()],
            ),
            Family(
                "kproxy_ipvs_real_servers_left_out",
                Kind.GAUGE,
                "Real servers that are too many to be told here; /metrics/ipvs has them.",
                [Sample({}, len(servers) - len(told))],
            ),
        ]

    def _draining(self, table: Dump) -> Mapping[tuple[ServiceKey, DestinationKey], float]:
        """Return for how long real servers have had weight 0, in seconds."""
        now = self._clock()
        since = {
            (key, server): self._drained_since.get((key, server), now)
            for key, entry in table.items()
            for server, known in entry.destinations.items()
            if known.config.weight == 0
        }
        self._drained_since = since
        return {at: now - began for at, began in since.items()}


def _names(states: Iterable[State]) -> Mapping[tuple[str, str, int], str]:
    """Return the names of service ports by protocol, address and port."""
    return {
        (one.service.protocol.lower(), address, port): str(name)
        for state in states
        for name, one in state.services.items()
        for address, port in places(one, state.node_ports)
    }


def _service_labels(key: ServiceKey, names: Mapping[tuple[str, str, int], str]) -> Labels:
    address = str(key.address)
    return {
        "service": names.get((str(key.protocol), address, key.port), ""),
        "protocol": str(key.protocol),
        "address": address,
        "port": str(key.port),
    }


def _labels(
    key: ServiceKey, server: DestinationKey, names: Mapping[tuple[str, str, int], str]
) -> Labels:
    real = {"real_address": str(server.address), "real_port": str(server.port)}
    return _service_labels(key, names) | real


def _virtual(
    traffic: Mapping[ServiceKey, ServiceTraffic], names: Mapping[tuple[str, str, int], str]
) -> Iterator[Family]:
    counted = [(_service_labels(key, names), told.traffic) for key, told in traffic.items()]
    yield from _traffic("virtual", counted)


def _real(
    table: Dump,
    traffic: Mapping[ServiceKey, ServiceTraffic],
    told: Iterable[tuple[ServiceKey, DestinationKey]],
    names: Mapping[tuple[str, str, int], str],
) -> Iterator[Family]:
    counted: Counted = []
    gauges: dict[str, list[Sample]] = {"weight": [], "active": [], "inactive": []}
    for key, server in told:
        # What came or went between the two readings is left out.
        if key not in traffic or server not in traffic[key].destinations:
            continue
        labels, seen = _labels(key, server, names), traffic[key].destinations[server]
        counted.append((labels, seen.traffic))
        weight = table[key].destinations[server].config.weight
        gauges["weight"].append(Sample(labels, weight))
        gauges["active"].append(Sample(labels, seen.stats.active))
        gauges["inactive"].append(Sample(labels, seen.stats.inactive))
    yield from _traffic("real", counted)
    for word, name, words in (
        ("weight", "weight", "Weight of a real server; 0: no new connections."),
        ("active", "active_connections", "Established connections of a real server."),
        ("inactive", "inactive_connections", "Other connections of a real server."),
    ):
        yield Family(f"kproxy_ipvs_real_server_{name}", Kind.GAUGE, words, gauges[word])


def _traffic(kind: str, counted: Counted) -> Iterator[Family]:
    name, words = f"kproxy_ipvs_{kind}_server", f"of a {kind} server."
    yield Family(
        f"{name}_connections_total",
        Kind.COUNTER,
        f"Connections {words}",
        [Sample(labels, one.connections) for labels, one in counted],
    )
    for unit in ("packets", "bytes"):
        samples = [
            Sample({**labels, "direction": direction}, getattr(one, f"{unit}_{direction}"))
            for labels, one in counted
            for direction in ("in", "out")
        ]
        yield Family(f"{name}_{unit}_total", Kind.COUNTER, f"{unit.capitalize()} {words}", samples)
