"""The rules as files to install, and the list of all alerts.

    python -m kproxy.monitoring.rulefiles DIRECTORY                   # Prometheus' rule_files
    python -m kproxy.monitoring.rulefiles --custom-resource DIRECTORY # PrometheusRule objects
    python -m kproxy.monitoring.rulefiles --index                     # docs/runbooks/README.md

Files of other names in the directory stay as they are.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from kproxy.errors import KproxyError, UsageError
from kproxy.monitoring import profiles
from kproxy.monitoring.profiles import Document, Profile

_INDEX = """\
# Runbooks

A page for each alert of [deploy/monitoring](../../deploy/monitoring/README.md): what it means,
what users lose, where to look, what to do. *By itself* is what [remediation](../remediation.md)
does, if it runs. Words in capitals in commands are yours to fill in; `kproxy node`, `kproxy diff`
and `kproxy explain` are run where the node's network is, or in the pod of its proxy. (This list is
written by `python -m kproxy.monitoring.rulefiles --index`.)

| alert | severity | after | by itself | |
| --- | --- | --- | --- | --- |
"""


def custom_resource(
    name: str, rules: Document, namespace: str, labels: Mapping[str, str]
) -> Document:
    """Return a rule document as a PrometheusRule, by which the Prometheus Operator takes it."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"kproxy-{name}", "namespace": namespace, "labels": dict(labels)},
        "spec": rules,
    }


def index() -> str:
    """Return the list of all runbooks, the alerts in the order of the rules."""
    alerts: dict[str, list[Document]] = {}
    for document in profiles.rules(Profile.PRODUCTION).values():
        for group in document["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    alerts.setdefault(rule["alert"], []).append(rule)
    return _INDEX + "".join(map(_row, alerts.values()))


def _row(rules: Sequence[Document]) -> str:
    """Return the line of an alert: in the words of its first rule, with the actions of all."""
    rule = rules[0]
    name, labels = rule["alert"], rule["labels"]
    actions = dict.fromkeys(one["labels"].get("remediation") for one in rules)
    action = ", ".join(f"`{one}`" for one in actions if one)
    cells = (f"[{name}]({name}.md)", labels["severity"], rule.get("for", "at once"), action)
    return "| " + " | ".join((*cells, rule["annotations"]["summary"])) + " |\n"


def write(options: argparse.Namespace) -> None:
    """Write all files. Raises UsageError if that is not possible."""
    labels = dict(label.split("=", 1) for label in options.label)
    for file, rules in profiles.rules(options.profile, runbooks=options.runbooks).items():
        document = rules
        if options.custom_resource:
            document = custom_resource(Path(file).stem, rules, options.namespace, labels)
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
        try:
            options.directory.mkdir(parents=True, exist_ok=True)
            (options.directory / f"kproxy-{file}").write_text(text)
        except OSError as error:
            raise UsageError(f"cannot write to {options.directory}: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _options(arguments)
    if options.index:
        print(index(), end="")
        return 0
    try:
        write(options)
    except KproxyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kproxy.monitoring.rulefiles")
    add = parser.add_argument
    add("directory", nargs="?", type=Path, metavar="DIRECTORY", help="where to write the files")
    add("--index", action="store_true", help="print the list of runbooks, and end")
    add("--profile", choices=list(Profile), default=Profile.PRODUCTION)
    add(
        "--runbooks",
        default=profiles.RUNBOOKS,
        metavar="URL",
        help="where you keep docs/runbooks: what runbook_url begins with, / at its end included",
    )
    add("--custom-resource", action="store_true", help="PrometheusRule objects")
    add("--namespace", default="monitoring", help="that of these objects; default: monitoring")
    add(
        "--label",
        action="append",
        default=[],
        type=_label,
        metavar="KEY=VALUE",
        help="a label of these objects, by which your Prometheus selects them; repeatable",
    )
    options = parser.parse_args(arguments)
    if options.directory is None and not options.index:
        parser.error("give a DIRECTORY")
    return options


def _label(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return text


if __name__ == "__main__":
    sys.exit(main())
