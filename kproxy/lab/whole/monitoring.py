"""What Prometheus, Alertmanager and remediation of a lab are told: their files.

The rules and the routes of alerts are those of ``deploy/monitoring``, as fast as the lab's profile
wants them; targets and addresses are the lab's.
"""

import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.access.pki import write_private
from kproxy.lab.pager import DEAD_MAN_PATH, HUMANS_PATH
from kproxy.lab.site import ADMIN
from kproxy.lab.whole import component, reach
from kproxy.lab.whole.monitoringtargets import (
    ALERTMANAGER_PORT,
    PAGER_PORT,
    REMEDIATION_PORT,
    scrape_configs,
)
from kproxy.lab.whole.places import Places
from kproxy.monitoring import profiles

Object = dict[str, Any]

REPLICA = "prometheus_replica"
"""The label that tells the two Prometheuses apart; no alert has it."""
ALERTS_PATH = "/alerts"
REMEDIATION = "remediation"
"""The receiver of alerts that name a cure."""
_TOKEN_BYTES = 32


def write(places: Places) -> None:
    """Write all files; nothing where nothing watches the cluster."""
    if not places.site.monitors:
        return
    files = places.monitoring
    files.rules.mkdir(parents=True, exist_ok=True)
    write_private(files.token, secrets.token_hex(_TOKEN_BYTES) + "\n")
    for name, rules in profiles.rules(places.site.file.profile).items():
        _write(files.rules / name, rules)
    _write(files.remediation, remediation(places))
    for host in places.site.monitors:
        directory = files.host(host)
        files.targets(host).mkdir(parents=True, exist_ok=True)
        _write(directory / "prometheus.yml", prometheus(places, host))
        _write(directory / "alertmanager.yml", alertmanager(places))


def prometheus(places: Places, host: str) -> Object:
    """Return the configuration of the Prometheus on a host."""
    site = places.site
    every = profiles.intervals(site.file.profile)
    managers = [f"{site.lan_address(one)}:{ALERTMANAGER_PORT}" for one in site.monitors]
    return {
        "global": {
            "scrape_interval": every.scrape,
            "scrape_timeout": every.timeout,
            "evaluation_interval": every.evaluation,
            "external_labels": {"cluster": site.file.name, REPLICA: host},
        },
        "rule_files": [str(places.monitoring.rules / "*.yaml")],
        "alerting": {
            # Two Prometheuses tell of one thing in the same words, or it would be two.
            "alert_relabel_configs": [{"regex": REPLICA, "action": "labeldrop"}],
            "alertmanagers": [{"static_configs": [{"targets": managers}]}],
        },
        "scrape_configs": scrape_configs(places, host),
    }


def alertmanager(places: Places) -> Object:
    """Return the configuration of both Alertmanagers."""
    site = places.site
    pager = f"http://{site.lan_address(ADMIN)}:{PAGER_PORT}"
    found = profiles.alertmanager(
        site.file.profile,
        f"http://{site.lan_address(site.monitors[0])}:{REMEDIATION_PORT}{ALERTS_PATH}",
        str(places.monitoring.token),
        humans_url=pager + HUMANS_PATH,
        dead_man_url=pager + DEAD_MAN_PATH,
    )
    watched = site.file.watched_by
    if watched is None or not watched.remediation:
        for part in (found["route"]["routes"], found["receivers"]):
            part[:] = [
                one for one in part if REMEDIATION not in (one.get("receiver"), one.get("name"))
            ]
    return found


def remediation(places: Places) -> Object:
    """Return the configuration of remediation: production's, with the lab's places.

    A node is reached by its proxy's pod, as on a real cluster, and where none runs, as are hosts
    of the control plane, by the lab.
    """
    state_dir = places.root.parent
    document: Object = yaml.safe_load((profiles.DEPLOY / "remediation.yaml").read_text())
    return document | {
        "listen": f"0.0.0.0:{REMEDIATION_PORT}",
        "tokenFile": str(places.monitoring.token),
        "journal": {"directory": str(places.monitoring.journal)},
        "kubeconfig": str(places.kubeconfig(kubeconfigs.REMEDIATION)),
        "divide": profiles.divisor(places.site.file.profile),
        "nodeAccess": {
            "kind": "exec",
            "options": {"command": shlex.join(reach.command(state_dir))},
        },
        "options": {
            "kproxy": f"{shlex.quote(sys.executable)} -m kproxy",
            "componentCommand": shlex.join(component.command(state_dir)),
            "componentLook": shlex.join([*component.command(state_dir), "--dry-run"]),
            "controlHosts": ",".join(places.site.control),
        },
    }


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
