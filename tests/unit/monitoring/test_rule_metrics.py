"""Every metric in every rule is exposed: by a program of this tree, or by one that is named."""

import re

import known_metrics

from kproxy.monitoring import profiles
from kproxy.monitoring.profiles import Profile

FOREIGN = {
    "alertmanager_notification_requests_failed_total": "Alertmanager",
    "alertmanager_notification_requests_total": "Alertmanager",
    "etcd_server_has_leader": "etcd",
    "node_nf_conntrack_entries": "node exporter",
    "node_nf_conntrack_entries_limit": "node exporter",
    "prometheus_notifications_dropped_total": "Prometheus",
    "prometheus_notifications_errors_total": "Prometheus",
    "prometheus_rule_evaluation_failures_total": "Prometheus",
    "up": "Prometheus",
}
"""Not of this tree; a lab's run asks them in earnest."""
_NO_METRICS = {
    *("and", "or", "unless", "by", "on", "group_left", "offset"),
    *("absent", "count", "histogram_quantile", "increase", "label_replace", "max", "min", "rate"),
    *("delta", "max_over_time", "sum", "time", "vector"),
}


def metrics(expression: str) -> set[str]:
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", "", text)
    return set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*", text)) - _NO_METRICS


def rules() -> list[dict[str, str]]:
    return [
        rule
        for document in profiles.rules(Profile.PRODUCTION).values()
        for group in document["groups"]
        for rule in group["rules"]
    ]


def test_every_metric_is_exposed_by_somebody() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set().union(*(metrics(rule["expr"]) for rule in rules()))

    assert used - known_metrics.ours() - recorded - FOREIGN.keys() == set()
    assert FOREIGN.keys() <= used


def test_every_recorded_series_is_used_by_an_alert() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set().union(*(metrics(rule["expr"]) for rule in rules()))

    assert recorded <= used


def test_names_are_read_as_promql_means_them() -> None:
    found = metrics('sum by (node) (rate(a_total{b="c"}[5m])) / on (x) group_left (y) d:e > 10')

    assert found == {"a_total", "d:e"}
