"""A client that changes Services and Deployments at random, and keeps a ledger of its writes.

    python -m kproxy.lab.chain.writer --kubeconfig FILE --seed N [--interval 3]

Creates, changes and deletes a few objects of its own, about one each ``--interval`` seconds. Each
write carries a value that no other has; each attempt is an event ``attempt`` (see ``ledger``),
logged when its outcome is known, or known to be unknown. SIGTERM ends it after the write in hand.
"""

import argparse
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.lab.chain.ledger import ABSENT, ATTEMPT, Outcome

Object = dict[str, Any]

NAMESPACE = "default"
SERVICES, DEPLOYMENTS = 6, 4
MOST_REPLICAS = 3
VALUE = "kproxy/value"
TIMEOUT = 5.0
_DELETED = 0.2
"""The share of changes that delete."""


def label(kind: kinds.Kind, name: str) -> str:
    """Return how an object is called in the ledger."""
    return f"{kind.name}/{name}"


def value_of(obj: Object) -> str:
    """Return the value that an object has; empty: it is not the writer's."""
    return str((obj["metadata"].get("annotations") or {}).get(VALUE, ""))


def service(name: str, number: str, value: str) -> Object:
    """Return a Service for the pods of the Deployment of that number."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {VALUE: value}},
        "spec": {
            "selector": {"soak": number},
            "ports": [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }


def deployment(name: str, number: str, value: str, replicas: int) -> Object:
    """Return a Deployment of pods that do nothing."""
    labels = {"soak": number}
    container = {"name": "soak", "image": "pause", "command": ["sleep", "infinity"]}
    spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {VALUE: value}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


@dataclass(slots=True)
class Writer:
    """Does one write at a time. ``known``: whether each object exists; None: not known."""

    api: ObjectClient
    lots: random.Random
    log: logs.Log
    count: int = 0
    known: dict[str, bool | None] = field(default_factory=dict)

    def step(self) -> None:
        """Make the next write; it is done, refused, or nobody knows."""
        number = self.lots.randrange(SERVICES + DEPLOYMENTS)
        kind = kinds.SERVICE if number < SERVICES else catalog.DEPLOYMENT
        name, which = f"soak-{number}", str(number % DEPLOYMENTS)
        delete, replicas = self.lots.random() < _DELETED, self.lots.randint(0, MOST_REPLICAS)
        its_label = label(kind, name)
        self.count += 1
        value = str(self.count)
        there = self.known.get(its_label, False)
        begun = time.monotonic_ns()
        try:
            if there is None:
                there = self.api.get(kind, NAMESPACE, name) is not None
            begun = time.monotonic_ns()
            if there and delete:
                value = ABSENT
                self.api.delete(kind, NAMESPACE, name)
            elif there:
                self._change(kind, name, value, replicas)
            else:
                self._create(kind, name, which, value, replicas)
        except errors.ApiError as error:
            outcome = Outcome.REFUSED if error.code < 500 else Outcome.UNKNOWN
            self._tell(its_label, value, begun, outcome, str(error))
            self.known[its_label] = None
        except (errors.KproxyError, OSError) as error:
            self._tell(its_label, value, begun, Outcome.UNKNOWN, str(error))
            self.known[its_label] = None
        else:
            self._tell(its_label, value, begun, Outcome.ACKNOWLEDGED)
            self.known[its_label] = value != ABSENT

    def _change(self, kind: kinds.Kind, name: str, value: str, replicas: int) -> None:
        patch: Object = {"metadata": {"annotations": {VALUE: value}}}
        if kind is catalog.DEPLOYMENT:
            patch["spec"] = {"replicas": replicas}
        self.api.patch(kind, NAMESPACE, name, patch)

    def _create(self, kind: kinds.Kind, name: str, which: str, value: str, replicas: int) -> None:
        if kind is catalog.DEPLOYMENT:
            self.api.create(kind, deployment(name, which, value, replicas))
        else:
            self.api.create(kind, service(name, which, value))

    def _tell(
        self, its_label: str, value: str, begun: int, outcome: Outcome, error: str = ""
    ) -> None:
        said = {"object": its_label, "value": value, "begun_ns": begun, "outcome": outcome}
        self.log.info(ATTEMPT, **said, error=error)


def main(arguments: list[str]) -> int:
    """Run as a process; ends by a signal only."""
    parser = argparse.ArgumentParser(prog="kproxy.lab.chain.writer", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--interval", type=float, default=3.0)
    given = parser.parse_args(arguments)
    rest = Rest(load_kubeconfig(given.kubeconfig), agent="writer", timeout=TIMEOUT)
    lots = random.Random(given.seed)  # noqa: S311  nothing secret is drawn
    writer = Writer(ObjectClient(rest), lots, logs.Log("writer"))
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    while not ending.wait(lots.uniform(0.5, 1.5) * given.interval):
        writer.step()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
