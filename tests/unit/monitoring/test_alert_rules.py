"""The rules by themselves: what every alert has, and that each has its tests and its page.

What they make of series is asked of promtool in tests/contract/test_alert_rules_promtool.py.
"""

import re
from typing import Any

import alert_rules
import pytest

from kproxy.monitoring import profiles
from kproxy.monitoring.profiles import Profile

RUNBOOKS = alert_rules.ROOT / "docs" / "runbooks"
SEVERITIES = {"critical", "warning", "info", "none"}
ACTIONS = {
    *("restart-proxy", "resync-proxy", "clean-conntrack", "heal-weights", "cordon-node"),
    "recreate-controller",
}
ABOUT_NODES = ACTIONS - {"recreate-controller"}
ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in alert_rules.alerts()]

Rule = dict[str, Any]


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_tells_how_bad_it_is_and_what_to_read(rule: Rule) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{profiles.RUNBOOKS}{rule['alert']}.md"
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["labels"].get("remediation", "restart-proxy") in ACTIONS


def test_only_the_dead_mans_switch_is_of_no_severity() -> None:
    none = [rule["alert"] for rule in alert_rules.alerts() if rule["labels"]["severity"] == "none"]

    assert none == ["Watchdog"]


@pytest.mark.parametrize("name", alert_rules.names())
def test_an_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    said = [one.labels is not None for one in alert_rules.expectations() if one.alert == name]

    assert set(said) == ({True} if name == "Watchdog" else {True, False})


@pytest.mark.parametrize("rule", ALERTS)
def test_the_words_of_an_alert_use_labels_that_it_has(rule: Rule) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))

    assert any(used <= set(labels) for labels in alert_rules.fired(rule["alert"]))


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_with_a_cure_says_where(rule: Rule) -> None:
    action = rule["labels"].get("remediation")
    fired = alert_rules.fired(rule["alert"])
    rules = [one for one in alert_rules.alerts() if one["alert"] == rule["alert"]]
    actions = {one["labels"].get("remediation") for one in rules}

    assert {labels.get("remediation") for labels in fired} == actions
    for labels in fired if action else ():
        assert "node" in labels or action not in ABOUT_NODES
        assert ("service" in labels) <= ("namespace" in labels)


def test_group_names_are_unique() -> None:
    groups = [
        group["name"]
        for document in profiles.rules(Profile.PRODUCTION).values()
        for group in document["groups"]
    ]

    assert len(set(groups)) == len(groups)


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}

    assert pages == set(alert_rules.names())


def test_the_documentation_names_the_alerts_of_each_action() -> None:
    text = (alert_rules.ROOT / "docs" / "alerts.md").read_text()
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (Kproxy.*) \|$", text, re.MULTILINE))
    cured: dict[str, set[str]] = {}
    for rule in alert_rules.alerts():
        if action := rule["labels"].get("remediation"):
            cured.setdefault(action, set()).add(rule["alert"])

    assert {action: set(names.split(", ")) for action, names in told.items()} == cured
    assert f"{len(alert_rules.names())} alerts" in text
