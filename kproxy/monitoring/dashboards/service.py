"""One service: what its users see, what stands behind it, how fast changes come through. Pure."""

from .model import (
    RATE,
    SERVICES,
    Board,
    Look,
    Panel,
    Query,
    Row,
    Step,
    Unit,
    Variable,
    increase,
    or_zero,
    quantile,
    rate,
)

_ENDPOINTS = 'namespace=~"$namespace",endpoint=~"$service"'
# IPVS names a service port as NAMESPACE/NAME:PORT.
_IPVS = 'service=~"($namespace)/($service)(:.*)?"'
_LOSS_STEPS = (Step("green"), Step("orange", 0.001), Step("red", 0.01))


def loss(
    title: str,
    description: str,
    by: str,
    legend: str,
    *,
    width: int,
    height: int = 7,
    look: Look = Look.LINES,
) -> Panel:
    """Return the panel of the share of probes without an answer, ``by`` labels."""
    lost = f"sum by ({by}) (rate(kproxy_probe_lost_total{{{SERVICES}}}[{RATE}]))"
    share = f"{lost} / {rate('kproxy_probe_sent_total', by, SERVICES)}"
    return Panel(
        title=title,
        description=description,
        unit=Unit.SHARE,
        queries=(Query(share, legend),),
        look=look,
        width=width,
        height=height,
        steps=_LOSS_STEPS,
    )


def _latency(title: str, description: str, share: float) -> Panel:
    return Panel(
        title=title,
        description=description,
        unit=Unit.SECONDS,
        queries=(
            Query(quantile(share, "kproxy_probe_duration_seconds", "node", SERVICES), "{{node}}"),
        ),
    )


SEEN = Row(
    "As its users see it",
    (
        loss(
            "Loss now",
            "Probes without an answer, as a share, from all nodes.",
            "namespace, service",
            "{{namespace}}/{{service}}",
            look=Look.FIGURE,
            width=6,
        ),
        loss(
            "Loss by node",
            "The same from each node: one node alone has wrong rules.",
            "node",
            "{{node}}",
            width=9,
        ),
        loss(
            "Loss by kind of probe",
            "New connections, datagrams from new ports, datagrams of lasting flows: if only the "
            "last are lost, connection tracking sends them to who is gone.",
            "protocol, port, probe",
            "{{protocol}} {{port}} {{probe}}",
            width=9,
        ),
        _latency("Latency, p99", "How long answers take, 99th percentile, from each node.", 0.99),
        _latency("Latency, median", "How long answers take, half of them, from each node.", 0.5),
        Panel(
            title="Probes",
            description="Probes per second from each node.",
            unit=Unit.PACKETS,
            queries=(Query(rate("kproxy_probe_sent_total", "node", SERVICES), "{{node}}"),),
        ),
    ),
)

BEHIND = Row(
    "What stands behind it",
    (
        Panel(
            title="Endpoints",
            description="Addresses behind the Service, ready and not ready.",
            unit=Unit.NUMBER,
            queries=tuple(
                Query(
                    or_zero(
                        "count(max by (namespace, endpoint, ip) "
                        f'(kube_endpoint_address{{{_ENDPOINTS},ready="{ready}"}} == 1))'
                    ),
                    words,
                )
                for ready, words in (("true", "ready"), ("false", "not ready"))
            ),
        ),
        Panel(
            title="New connections to it, by real server",
            description="As IPVS counts them on all nodes (kproxy, mode ipvs; 0 in other modes).",
            unit=Unit.PER_SECOND,
            queries=(
                Query(
                    or_zero(
                        rate(
                            "kproxy_ipvs_real_server_connections_total",
                            "real_address, real_port",
                            _IPVS,
                        )
                    ),
                    "{{real_address}}:{{real_port}}",
                ),
            ),
        ),
        Panel(
            title="Weights",
            description="Weight of each real server, the least of all nodes; 0 gets no new "
            "connections (kproxy, mode ipvs; 0 in other modes).",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    or_zero(
                        "min by (real_address, real_port) "
                        f"(kproxy_ipvs_real_server_weight{{{_IPVS}}})"
                    ),
                    "{{real_address}}:{{real_port}}",
                ),
            ),
        ),
    ),
)

CHANGES = Row(
    "Changes on their way (all Services)",
    (
        Panel(
            title="Changes of endpoints heard",
            description="Changes of EndpointSlices that proxies were told.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    increase("kubeproxy_sync_proxy_rules_endpoint_changes_total", "node"),
                    "{{node}}",
                ),
            ),
        ),
        Panel(
            title="Programming latency",
            description="From the change of an endpoint to the kernel: 50th, 90th and 99th "
            "percentile over five minutes, as recorded for Kubernetes' objective.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    "max by (quantile) "
                    "(kubeproxy:kubeproxy_network_programming_duration:histogram_quantile)",
                    "{{quantile}}",
                ),
            ),
        ),
        Panel(
            title="Programming latency by node, p99",
            description="The same for each node, over the window of the picture.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    quantile(0.99, "kubeproxy_network_programming_duration_seconds", "node"),
                    "{{node}}",
                ),
            ),
        ),
    ),
)

BOARD = Board(
    uid="kproxy-service",
    title="kproxy / One service",
    description="What users of a Service see, what is behind it, how fast changes come through.",
    variables=(
        Variable(
            name="namespace",
            label="Namespace",
            metric="kproxy_probe_sent_total",
            of="namespace",
            several=False,
        ),
        Variable(
            name="service",
            label="Service",
            metric='kproxy_probe_sent_total{namespace=~"$namespace"}',
            of="service",
            several=False,
        ),
    ),
    rows=(SEEN, BEHIND, CHANGES),
)
