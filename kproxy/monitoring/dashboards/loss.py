"""Loss and failover: what was lost where, how fast the budget burns, who took over. Pure."""

from .model import (
    GOOD_IF_ZERO,
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
    quantile_ever,
)
from .service import loss

BUDGET = 0.001
"""The objective of the rules: of 30 days' probes to a Service at most this share is lost."""
_BURNS = (("5m", 14.4), ("1h", 14.4), ("6h", 6.0), ("3d", 1.0))
_HEARD = "kubeproxy_sync_proxy_rules_endpoint_changes_total"
_BURN_STEPS = (Step("green"), Step("orange", 1), Step("red", 6))
_SERVICE = "{{namespace}}/{{service}}"


def _burn(window: str) -> str:
    recorded = f"namespace_service:kproxy_probe_loss:ratio_rate{window}{{{SERVICES}}}"
    return f"max by (namespace, service) ({recorded}) / {BUDGET:g}"


LOST = Row(
    "Lost",
    (
        loss(
            "Loss by Service",
            "Probes without an answer, as a share, from all nodes.",
            "namespace, service",
            _SERVICE,
            width=12,
        ),
        loss(
            "Loss by node",
            "The same for each node, over all chosen Services.",
            "node",
            "{{node}}",
            width=12,
        ),
        loss(
            "Loss by Service and node",
            "Which Service fails from which node: a row fails everywhere, or a node fails for "
            "all.",
            "namespace, service, node",
            f"{_SERVICE} from {{{{node}}}}",
            look=Look.STATES,
            width=24,
            height=10,
        ),
    ),
)

BURNING = Row(
    f"How fast the budget of {BUDGET:.1%} burns (1: used up in 30 days)",
    tuple(
        Panel(
            title=f"Burn rate over {window}",
            description=f"Loss over {window} as a multiple of the budget; from {most:g} on, if "
            "the shorter window says so, too, somebody is called.",
            unit=Unit.NUMBER,
            queries=(Query(_burn(window), _SERVICE),),
            width=6,
            steps=_BURN_STEPS,
        )
        for window, most in _BURNS
    ),
)

FAILOVER = Row(
    "Who took over, who was started again",
    (
        Panel(
            title="Leaders of controllers",
            description="Which host leads.",
            unit=Unit.STATE,
            queries=(
                Query("max by (name, node) (leader_election_master_status)", "{{name}} {{node}}"),
            ),
            look=Look.STATES,
            steps=(Step("text"), Step("green", 1)),
            words=((0, "waits"), (1, "leads")),
            width=12,
        ),
        Panel(
            title="Starts of processes",
            description="Processes that are not those of the scrape before.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    'sum by (job, node) (changes(process_start_time_seconds{job=~"kube-.+"}'
                    f"[{RATE}]))",
                    "{{job}} {{node}}",
                ),
            ),
            width=12,
        ),
        Panel(
            title="etcd: leader changes",
            description="Changes of etcd's leader in the window.",
            unit=Unit.NUMBER,
            queries=(
                Query(f"max(increase(etcd_server_leader_changes_seen_total[{RATE}]))", "changes"),
            ),
        ),
        Panel(
            title="Nodes not ready",
            description="Nodes whose condition Ready is not true.",
            unit=Unit.STATE,
            queries=(
                Query(
                    "1 - max by (node) "
                    '(kube_node_status_condition{condition="Ready",status="true"})',
                    "{{node}}",
                ),
            ),
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="Endpoints that came and went",
            description="Changes of EndpointSlices that proxies heard of, the most of all nodes.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    f"max({increase(_HEARD, 'node')})",
                    "changes",
                ),
            ),
        ),
    ),
)

CURES = Row(
    "Cures",
    (
        Panel(
            title="Actions ended",
            description="Alerts that were acted on, by what came of it.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    increase("kproxy_remediation_actions_total", "action, result"),
                    "{{action}} {{result}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Refused",
            description="Actions that were due and not run, by reason: they would not help, or "
            "are not allowed now.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    or_zero(increase("kproxy_remediation_refusals_total", "action, reason")),
                    "{{action}} {{reason}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Left to humans",
            description="Alerts whose cure did not help, or was not allowed for too long.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    increase("kproxy_remediation_escalations_total", "action, reason"),
                    "{{action}} {{reason}}",
                ),
            ),
            width=6,
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="From alert to verified repair, p90",
            description="Ninetieth percentile; where there was none lately, since the start.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    or_zero(
                        quantile_ever(0.9, "kproxy_remediation_repair_duration_seconds", "action")
                    ),
                    "{{action}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Alerts",
            description="Alerts that fire, the dead man's switch left out.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    or_zero(
                        "count by (alertname) (max by (alertname, node, namespace, service) "
                        '(ALERTS{alertstate="firing",severity!="none"}))'
                    ),
                    "{{alertname}}",
                ),
            ),
            width=24,
        ),
    ),
)

BOARD = Board(
    uid="kproxy-loss",
    title="kproxy / Loss and failover",
    description="What was lost where, how fast the budget burns, who took over, what was "
    "repaired.",
    variables=(
        Variable(
            name="namespace", label="Namespace", metric="kproxy_probe_sent_total", of="namespace"
        ),
        Variable(
            name="service",
            label="Service",
            metric='kproxy_probe_sent_total{namespace=~"$namespace"}',
            of="service",
        ),
    ),
    rows=(LOST, BURNING, FAILOVER, CURES),
)
