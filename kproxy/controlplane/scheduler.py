"""The scheduler: gives every pod a node; of several replicas one works.

    python -m kproxy.controlplane.scheduler --kubeconfig FILE [--leader-elect=false] …

Runs like a manager with one controller; :mod:`scheduling` says how it chooses.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from kproxy import logs
from kproxy.api import catalog, kinds

from . import component
from .controllers import registry
from .manager import Manager
from .scheduling.metrics import SchedulerMetrics
from .scheduling.scheduler import NAME as COMPONENT
from .scheduling.scheduler import Scheduler

Object = dict[str, Any]

NAME = "kube-scheduler"
PORT = 10259


def _pod_changed(
    context: registry.Context, scheduler: Any, old: Object | None, new: Object | None
) -> Iterable[str]:
    found: Iterable[str] = scheduler.pod_changed(old, new)
    return found


def _node_changed(
    context: registry.Context, scheduler: Any, old: Object | None, new: Object | None
) -> Iterable[str]:
    found: Iterable[str] = scheduler.node_changed(old, new)
    return found


def registration(metrics: SchedulerMetrics | None = None) -> registry.Registration:
    """Return what makes a manager a scheduler."""
    return registry.Registration(
        "scheduler",
        lambda context: Scheduler(context.cluster, context.log, context.events, metrics=metrics),
        {catalog.POD: _pod_changed, kinds.NODE: _node_changed},
        reads=(kinds.SERVICE,),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Work while this is the leader, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="kproxy.controlplane.scheduler")
    component.add_options(parser, lease=NAME, port=PORT)
    options = parser.parse_args(arguments)
    log = logs.Log("scheduler")

    def make(parts: component.Parts) -> Manager:
        return Manager(
            parts.client,
            log,
            guard=parts.guard,
            metrics=parts.metrics,
            controllers=(registration(SchedulerMetrics(parts.metrics.registry, COMPONENT)),),
            name=COMPONENT,
        )

    return component.run(options, log, "kube-scheduler", make)


if __name__ == "__main__":
    sys.exit(main())
