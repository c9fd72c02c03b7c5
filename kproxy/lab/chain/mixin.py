"""The rules of kubernetes-mixin alone: what most clusters are told of their proxies.

Ours would be told sooner, and keep back the mixin's alert of the same proxy.
"""

from typing import Any

import yaml

from kproxy.lab.chain.alarms import WATCHDOG
from kproxy.lab.chain.stage import ChainStage
from kproxy.lab.whole.roles import Role

ALERTS = ("KubeProxyDown", "KubeProxyInstanceUnreachable")

Document = dict[str, Any]


def alone(stage: ChainStage) -> None:
    """Leave a cluster's Prometheuses no rule but these, and the dead man's switch."""
    changed = False
    for path in sorted(stage.cluster.places.monitoring.rules.glob("*.yaml")):
        before: Document = yaml.safe_load(path.read_text())
        after = without_others(before)
        if after != before:
            path.write_text(yaml.safe_dump(after, sort_keys=False))
            changed = True
    if changed:
        for host in stage.cluster.site.monitors:
            stage.cluster.processes.kill(host, Role.PROMETHEUS)  # its init starts it again


def without_others(document: Document) -> Document:
    """Return a document of rules with these alone. Pure."""
    kept = []
    for group in document["groups"]:
        rules = [rule for rule in group["rules"] if rule.get("alert") in (*ALERTS, WATCHDOG)]
        if rules:
            kept.append({**group, "rules": rules})
    return {"groups": kept}
