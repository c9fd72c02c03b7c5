"""What a name server counts, under the names of CoreDNS' metrics."""

from kproxy.exposition import Registry

_BOUNDS = tuple(0.00025 * 2**power for power in range(16))
SERVER = "dns://:53"


class Metrics:
    """Counters of questions and answers."""

    def __init__(self) -> None:
        self.registry = Registry()
        self._requests = self.registry.counter(
            "coredns_dns_requests_total",
            "Questions, by zone, transport, family of addresses and type",
            *("server", "zone", "proto", "family", "type"),
        )
        self._responses = self.registry.counter(
            "coredns_dns_responses_total",
            "Answers, by zone and code",
            *("server", "zone", "rcode"),
        )
        self._durations = self.registry.histogram(
            "coredns_dns_request_duration_seconds",
            "How long questions took",
            _BOUNDS,
            *("server", "zone"),
        )
        self.changes = self.registry.gauge(
            "kproxy_dns_zone_changes", "How often the zone has changed"
        )
        self.panics = self.registry.counter(
            "coredns_panics_total", "Questions that could not be dealt with: bugs"
        )

    def told(
        self, *, zone: str, proto: str, family: str, kind: str, rcode: str, seconds: float
    ) -> None:
        """Count an answer to a question."""
        self._requests.add(SERVER, zone, proto, family, kind)
        self._responses.add(SERVER, zone, rcode)
        self._durations.observe(seconds, SERVER, zone)
