"""The chain at a glance: every link that keeps a Service available, from kernel to pager. Pure."""

from .model import (
    GOOD_IF_ALL,
    GOOD_IF_ZERO,
    Board,
    Look,
    Panel,
    Query,
    Row,
    Unit,
    or_zero,
    quantile,
    rate,
)

_LINKS = (
    "kube-proxy|kubelet|kube-apiserver|kube-controller-manager|kube-scheduler|etcd|kube-dns"
    "|kube-state-metrics|node-exporter|prometheus|alertmanager|kproxy-prober|kproxy-remediation"
)
_UP = f'up{{job=~"{_LINKS}"}}'
# Both Prometheuses may have scraped a thing: it is one.
_READY = 'max by (node) (kube_node_status_condition{condition="Ready",status="true"})'
_SHORT = (
    "max by (namespace, daemonset) (kube_daemonset_status_desired_number_scheduled"
    " - kube_daemonset_status_number_available)"
)


def _p99(title: str, description: str, metric: str, by: str) -> Panel:
    """Return the panel of a duration's 99th percentile for each value of a label."""
    return Panel(
        title=title,
        description=description,
        unit=Unit.SECONDS,
        queries=(Query(quantile(0.99, metric, by), f"{{{{{by}}}}}"),),
    )


NOW = Row(
    "Now",
    (
        Panel(
            title="Links up",
            description="Of each job, the share of its targets that answer scrapes.",
            unit=Unit.SHARE,
            queries=(Query(f"avg by (job) ({_UP})", "{{job}}"),),
            look=Look.FIGURE,
            width=24,
            height=5,
            steps=GOOD_IF_ALL,
        ),
        Panel(
            title="Alerts firing",
            description="Alerts by severity, the dead man's switch left out.",
            unit=Unit.NUMBER,
            queries=tuple(
                Query(
                    or_zero(
                        "count(max by (alertname, node, namespace, service, job) "
                        f'(ALERTS{{alertstate="firing",severity="{severity}"}}))'
                    ),
                    severity,
                )
                for severity in ("critical", "warning", "info")
            ),
            look=Look.FIGURE,
            height=5,
            width=6,
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="Leaders",
            description="Whether somebody leads, of controllers and of etcd. Nobody: nothing is "
            "repaired, or nothing can be written.",
            unit=Unit.STATE,
            queries=(
                Query("max by (name) (leader_election_master_status)", "{{name}}"),
                Query("max(etcd_server_has_leader)", "etcd"),
            ),
            look=Look.FIGURE,
            height=5,
            width=6,
            steps=GOOD_IF_ALL,
            words=((0, "nobody"), (1, "yes")),
        ),
        Panel(
            title="etcd members to spare",
            description="How many more members may fail before nothing can be written.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    'sum(max by (node) (up{job="etcd"})) - '
                    'floor(count(count by (node) (up{job="etcd"})) / 2) - 1',
                    "members",
                ),
            ),
            look=Look.FIGURE,
            height=5,
            width=4,
        ),
        Panel(
            title="Nodes not ready",
            description="Nodes whose condition Ready is not true.",
            unit=Unit.NUMBER,
            queries=(Query(f"count({_READY}) - sum({_READY})", "nodes"),),
            look=Look.FIGURE,
            height=5,
            width=4,
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="Dead man's switch",
            description="The alert Watchdog always fires. If it does not, no alert comes.",
            unit=Unit.STATE,
            queries=(
                Query(
                    or_zero('max(ALERTS{alertname="Watchdog",alertstate="firing"})'), "Watchdog"
                ),
            ),
            look=Look.FIGURE,
            height=5,
            width=4,
            steps=GOOD_IF_ALL,
            words=((0, "silent"), (1, "lives")),
        ),
    ),
)

TARGETS = Row(
    "Who was up when",
    (
        Panel(
            title="Targets",
            description="Whether targets answered scrapes.",
            unit=Unit.STATE,
            queries=(Query(f"max by (job, node) ({_UP})", "{{job}} {{node}}"),),
            look=Look.STATES,
            width=24,
            height=12,
            steps=GOOD_IF_ALL,
            words=((0, "down"), (1, "up")),
        ),
    ),
)

CONTROL = Row(
    "API servers, controllers, store",
    (
        Panel(
            title="API requests",
            description="Requests per second by code.",
            unit=Unit.REQUESTS,
            queries=(Query(rate("apiserver_request_total", "code"), "{{code}}"),),
        ),
        _p99(
            "API latency, p99",
            "From the head of a request to its answer, watches left out.",
            "apiserver_request_duration_seconds",
            "verb",
        ),
        Panel(
            title="Watchers",
            description="Watches that are open at each API server.",
            unit=Unit.NUMBER,
            queries=(Query("sum by (node) (apiserver_longrunning_requests)", "{{node}}"),),
        ),
        Panel(
            title="Queue depth",
            description="Keys that wait in the queues of controllers and schedulers. Growing: "
            "nobody works.",
            unit=Unit.NUMBER,
            queries=(Query("sum by (name) (workqueue_depth)", "{{name}}"),),
        ),
        _p99(
            "Time per key, p99",
            "How long a controller works on one key.",
            "workqueue_work_duration_seconds",
            "name",
        ),
        Panel(
            title="Keys tried again",
            description="Keys that failed and went back into their queue, per second.",
            unit=Unit.PER_SECOND,
            queries=(Query(rate("workqueue_retries_total", "name"), "{{name}}"),),
        ),
        _p99(
            "etcd: log written, p99",
            "How long members wait for their disk; slow disks lose leaders.",
            "etcd_disk_wal_fsync_duration_seconds",
            "node",
        ),
        Panel(
            title="etcd: leader changes",
            description="Changes of leader that each member has seen since it began.",
            unit=Unit.NUMBER,
            queries=(Query("max by (node) (etcd_server_leader_changes_seen_total)", "{{node}}"),),
        ),
        Panel(
            title="Store: last good answer ago",
            description="Time since the store answered an API server, etcd or not. Growing for "
            "writes: there is no quorum, or no room (kproxy only).",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    "time() - max by (node, way) (kproxy_store_last_success_timestamp_seconds)",
                    "{{node}} {{way}}",
                ),
            ),
        ),
        Panel(
            title="Pods that wait for a node",
            description="Pods that schedulers have not placed, by queue.",
            unit=Unit.NUMBER,
            queries=(Query("max by (queue) (scheduler_pending_pods)", "{{queue}}"),),
        ),
        Panel(
            title="Names resolved",
            description="Answers of the cluster's name servers by code.",
            unit=Unit.REQUESTS,
            queries=(Query(or_zero(rate("coredns_dns_responses_total", "rcode")), "{{rcode}}"),),
        ),
    ),
)

NODES = Row(
    "Nodes",
    (
        Panel(
            title="Pods running",
            description="Pods that each kubelet keeps.",
            unit=Unit.NUMBER,
            queries=(Query("max by (node) (kubelet_running_pods)", "{{node}}"),),
            width=6,
        ),
        Panel(
            title="DaemonSets short of pods",
            description="Pods of DaemonSets that are wanted and not available.",
            unit=Unit.NUMBER,
            queries=(Query(_SHORT, "{{namespace}}/{{daemonset}}"),),
            width=6,
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="Proxies behind",
            description="How long after a proxy's last good sync another one was asked for.",
            unit=Unit.SECONDS,
            queries=(
                Query(
                    "max by (node) (clamp_min("
                    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds"
                    " - kubeproxy_sync_proxy_rules_last_timestamp_seconds, 0))",
                    "{{node}}",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Connection tracking",
            description="Entries as a share of what fits.",
            unit=Unit.SHARE,
            queries=(
                Query(
                    "max by (node) (node_nf_conntrack_entries / node_nf_conntrack_entries_limit)",
                    "{{node}}",
                ),
            ),
            width=6,
            most=1,
        ),
    ),
)

WATCHERS = Row(
    "Who watches",
    (
        Panel(
            title="Rules that failed",
            description="Evaluations of rules that failed.",
            unit=Unit.NUMBER,
            queries=(
                Query(
                    "sum by (node) (increase(prometheus_rule_evaluation_failures_total"
                    "[$__rate_interval]))",
                    "{{node}}",
                ),
            ),
            width=6,
            steps=GOOD_IF_ZERO,
        ),
        Panel(
            title="Notifications",
            description="Notifications per second that Alertmanagers sent, by way; failed ones.",
            unit=Unit.PER_SECOND,
            queries=(
                Query(rate("alertmanager_notifications_total", "integration"), "{{integration}}"),
                Query(
                    rate("alertmanager_notifications_failed_total", "integration"),
                    "{{integration}} failed",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Probes",
            description="Probes per second from each node.",
            unit=Unit.PACKETS,
            queries=(Query(rate("kproxy_probe_sent_total", "node"), "{{node}}"),),
            width=6,
        ),
        Panel(
            title="Cures waiting",
            description="Alerts that wait to be acted on, and whether an action runs.",
            unit=Unit.NUMBER,
            queries=(
                Query("max(kproxy_remediation_queue_length)", "waiting"),
                Query("max(kproxy_remediation_busy)", "at work"),
            ),
            width=6,
        ),
    ),
)

BOARD = Board(
    uid="kproxy-chain",
    title="kproxy / The chain at a glance",
    description="Every link that keeps Services available: up, who leads, what waits, what fires.",
    rows=(NOW, TARGETS, CONTROL, NODES, WATCHERS),
)
