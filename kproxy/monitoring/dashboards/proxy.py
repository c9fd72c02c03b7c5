"""One proxy: the panels of kubernetes-mixin's "Kubernetes / Proxy", and what it lacks. Pure.

The metrics that begin with ``kproxy_`` are kproxy's own; the rest works with kube-proxy, too.
"""

from .model import (
    GOOD_IF_ALL,
    GOOD_IF_ZERO,
    PROXIES,
    Board,
    Look,
    Panel,
    Query,
    Row,
    Unit,
    Variable,
    increase,
    or_zero,
    quantile,
    quantile_ever,
    rate,
)

NODE = "{{node}}"
_SYNC = "kubeproxy_sync_proxy_rules"
_LAST = f"max by (node) ({_SYNC}_last_timestamp_seconds{{{PROXIES}}})"
_QUEUED = f"max by (node) ({_SYNC}_last_queued_timestamp_seconds{{{PROXIES}}})"
_NO_LOCAL = f"{_SYNC}_no_local_endpoints_total"
_FAILED = (
    ("kproxy_sync_failures_total", "syncs"),
    (f"{_SYNC}_iptables_restore_failures_total", "iptables-restore"),
    (f"{_SYNC}_nftables_sync_failures_total", "nft"),
)


def _zero(expr: str) -> str:
    return or_zero(expr, "node", PROXIES)


SYNCS = Row(
    "Syncs",
    (
        Panel(
            title="Up",
            description="Proxies that answer scrapes.",
            unit=Unit.STATE,
            queries=(Query(f"max by (node) (up{{{PROXIES}}})", NODE),),
            look=Look.FIGURE,
            width=4,
            steps=GOOD_IF_ALL,
            words=((0, "down"), (1, "up")),
        ),
        Panel(
            title="Rules sync rate",
            description="Syncs per second: whenever something changed, and once in a period.",
            unit=Unit.PER_SECOND,
            queries=(Query(rate(f"{_SYNC}_duration_seconds_count", "node", PROXIES), NODE),),
            width=10,
        ),
        Panel(
            title="Rules sync latency, p99",
            description="How long a sync takes, 99th percentile.",
            unit=Unit.SECONDS,
            queries=(Query(quantile(0.99, f"{_SYNC}_duration_seconds", "node", PROXIES), NODE),),
            width=10,
        ),
        Panel(
            title="Last sync ago",
            description="Time since the last sync that went well. It may be one sync period.",
            unit=Unit.SECONDS,
            queries=(Query(f"time() - {_LAST}", NODE),),
        ),
        Panel(
            title="A sync has been due for",
            description="How long after the last sync that went well another one was asked for. "
            "Growing: the proxy hangs, or its syncs fail.",
            unit=Unit.SECONDS,
            queries=(Query(f"clamp_min({_QUEUED} - {_LAST}, 0)", NODE),),
        ),
        Panel(
            title="Failures",
            description="Syncs that failed and will be tried again; zero is healthy.",
            unit=Unit.NUMBER,
            queries=(
                Query(_zero(increase(_FAILED[0][0], "node", PROXIES)), f"{NODE} all modes"),
                *(
                    Query(_zero(increase(name, "node", PROXIES)), f"{NODE} {words}")
                    for name, words in _FAILED[1:]
                ),
            ),
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="Changes that wait",
            description="Services and endpoints that have changed and are not in the kernel yet.",
            unit=Unit.NUMBER,
            queries=tuple(
                Query(
                    f"max by (node) ({_SYNC}_{what}_changes_pending{{{PROXIES}}})",
                    f"{NODE} {what}s",
                )
                for what in ("endpoint", "service")
            ),
        ),
        Panel(
            title="Health checks answered",
            description="Answers of /livez and /healthz by code: 503 is a proxy that lags.",
            unit=Unit.REQUESTS,
            queries=(
                Query(
                    rate("kubeproxy_proxy_livez_total", "node, code", PROXIES),
                    f"{NODE} livez {{{{code}}}}",
                ),
                Query(
                    _zero(rate("kubeproxy_proxy_healthz_total", "node, code", PROXIES)),
                    f"{NODE} healthz {{{{code}}}}",
                ),
            ),
        ),
        Panel(
            title="Services without local endpoints",
            description="Services whose traffic policy is Local and that have no endpoint here.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    f"max by (node, traffic_policy) ({_NO_LOCAL}{{{PROXIES}}})",
                    f"{NODE} {{{{traffic_policy}}}}",
                ),
            ),
        ),
    ),
)

PROGRAMMING = Row(
    "From a change to the kernel",
    (
        Panel(
            title="Network programming rate",
            description="Changes of endpoints per second that have come into the kernel.",
            unit=Unit.PER_SECOND,
            queries=(
                Query(
                    rate("kubeproxy_network_programming_duration_seconds_count", "node", PROXIES),
                    NODE,
                ),
            ),
        ),
        Panel(
            title="Network programming latency, p99",
            description="From the change of an endpoint to the kernel, as Kubernetes' own "
            "objective measures it.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    quantile(
                        0.99, "kubeproxy_network_programming_duration_seconds", "node", PROXIES
                    ),
                    NODE,
                ),
            ),
        ),
        Panel(
            title="From hearing of a change to the kernel, p99",
            description="The proxy's own part of that (kproxy only, finer buckets).",
            unit=Unit.SECONDS,
            queries=(
                Query(quantile(0.99, "kproxy_change_duration_seconds", "node", PROXIES), NODE),
            ),
        ),
        Panel(
            title="Watch heard",
            description="Time since the API server last told something of a kind: it does so once "
            "a minute or so, if only a bookmark (kproxy only).",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    "time() - max by (node, resource) "
                    f"(kproxy_watch_last_event_timestamp_seconds{{{PROXIES}}})",
                    f"{NODE} {{{{resource}}}}",
                ),
            ),
        ),
        Panel(
            title="Watch behind",
            description="How many versions of the cluster's state an API server has that the "
            "proxy has not heard of. Staying above zero: its watch is stuck (kproxy only).",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    "clamp_min(max by (resource) (apiserver_watch_cache_resource_version)"
                    " - on (resource) group_right() max by (node, resource) "
                    f"(kproxy_watch_resource_version{{{PROXIES}}} > 0), 0)",
                    f"{NODE} {{{{resource}}}}",
                ),
            ),
        ),
        Panel(
            title="Kernel objects written",
            description="Kernel objects added, changed and removed (kproxy only).",
            unit=Unit.PER_SECOND,
            queries=(Query(rate("kproxy_kernel_writes_total", "node", PROXIES), NODE),),
        ),
    ),
)

KERNEL = Row(
    "What is in the kernel",
    (
        Panel(
            title="Drift",
            description="Kernel objects that were not as they had been left, though no object of "
            "the API had changed: somebody else writes (kproxy only).",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    _zero(increase("kproxy_drift_found_total", "node", PROXIES)), f"{NODE} found"
                ),
                Query(
                    _zero(increase("kproxy_drift_repaired_total", "node", PROXIES)),
                    f"{NODE} repaired",
                ),
            ),
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="IPVS: longest draining",
            description="For how long a real server has had weight 0; longer than the longest "
            "connection: it is stuck (kproxy, mode ipvs; 0 in other modes).",
            unit=Unit.SECONDS,
            queries=(
                Query(_zero(f"max by (node) (kproxy_ipvs_draining_seconds{{{PROXIES}}})"), NODE),
            ),
        ),
        Panel(
            title="Adopted at start",
            description="What the proxy's first sync found right in the kernel: after a restart "
            "it should be everything (kproxy only).",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    f"sum by (node, ip_family) (kproxy_adopted_objects{{{PROXIES}}})",
                    f"{NODE} {{{{ip_family}}}}",
                ),
            ),
        ),
        Panel(
            title="Connection tracking",
            description="Entries in the node's table, as a share of what fits: full, it drops new "
            "connections (node exporter).",
            unit=Unit.SHARE,
            queries=(
                Query(
                    'max by (node) (node_nf_conntrack_entries{node=~"$node"} / '
                    'node_nf_conntrack_entries_limit{node=~"$node"})',
                    NODE,
                ),
            ),
            most=1,
        ),
        Panel(
            title="Stale UDP flows deleted",
            description="Flows to endpoints that are gone, taken out of connection tracking.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    _zero(
                        increase(
                            "kubeproxy_conntrack_reconciler_deleted_entries_total", "node", PROXIES
                        )
                    ),
                    NODE,
                ),
            ),
        ),
    ),
)

PROCESS = Row(
    "The process",
    (
        Panel(
            title="Kube API request rate",
            description="Requests to the API server by code.",
            unit=Unit.REQUESTS,
            queries=(
                Query(
                    rate("rest_client_requests_total", "node, code", PROXIES),
                    f"{NODE} {{{{code}}}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="API request latency, p99",
            description="Of lists and writes; where there were none lately, since the start.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    quantile_ever(
                        0.99, "rest_client_request_duration_seconds", "node, verb", PROXIES
                    ),
                    f"{NODE} {{{{verb}}}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Memory",
            description="Resident memory.",
            unit=Unit.BYTES,
            queries=(Query(f"max by (node) (process_resident_memory_bytes{{{PROXIES}}})", NODE),),
            width=6,
        ),
        Panel(
            title="CPU",
            description="CPU cores in use.",
            unit=Unit.CORES,
            queries=(Query(rate("process_cpu_seconds_total", "node", PROXIES), NODE),),
            width=6,
        ),
    ),
)

BOARD = Board(
    uid="kproxy-proxy",
    title="kproxy / One proxy",
    description="What a node's proxy does, hears and has left in the kernel.",
    variables=(Variable(name="node", label="Node", metric='up{job="kube-proxy"}', of="node"),),
    rows=(SYNCS, PROGRAMMING, KERNEL, PROCESS),
)
