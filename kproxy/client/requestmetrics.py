"""What is asked of the API server, by the names of Kubernetes' own clients: ``rest_client_*``."""

import math

from kproxy.exposition import Registry

from .http1 import Exchange

SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
RESOLVING_SECONDS = SECONDS[:-1]
BYTES = (64, 256, 512, *(1024 * 4**power for power in range(8)))
"""All three as client-go has them; 64 bytes to 16 MB."""

_WHOM = ("host", "verb")


class RequestMetrics:
    """Counts exchanges with one host, from any thread."""

    def __init__(self, registry: Registry, host: str) -> None:
        self._host = host
        prefix = "rest_client_"
        self._requests = registry.counter(
            f"{prefix}requests_total",
            "Requests by code (<error>: no answer), method and host.",
            *("code", "host", "method"),
        )
        self._duration = registry.histogram(
            f"{prefix}request_duration_seconds",
            "How many seconds requests took that are no watches.",
            SECONDS,
            *_WHOM,
        )
        self._sent = registry.histogram(
            f"{prefix}request_size_bytes", "Sizes of the bodies of requests.", BYTES, *_WHOM
        )
        self._received = registry.histogram(
            f"{prefix}response_size_bytes", "Sizes of the bodies of answers.", BYTES, *_WHOM
        )
        self._resolving = registry.histogram(
            f"{prefix}dns_resolution_duration_seconds",
            "How many seconds it took to resolve the name of the host, if it has one.",
            RESOLVING_SECONDS,
            "host",
        )
        registry.gauge(
            f"{prefix}exec_plugin_ttl_seconds",
            "How long certificates of exec plugins are valid; +Inf: none are in use.",
        ).set(math.inf)

    def observe(self, one: Exchange) -> None:
        """Count one."""
        host = self._host
        self._requests.add(one.code, host, one.method)
        if one.seconds is not None:
            self._duration.observe(one.seconds, host, one.method)
            self._sent.observe(one.sent, host, one.method)
        if one.received is not None:
            self._received.observe(one.received, host, one.method)
        if one.resolved_s is not None:
            self._resolving.observe(one.resolved_s, host)
