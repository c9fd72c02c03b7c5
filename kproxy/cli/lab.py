"""``kproxy lab``: a whole cluster in a lab, from one file, for as long as one wants."""

import click

from kproxy.cli.main import LazyGroup

COMMANDS = {
    "apply": "kproxy.cli.lab_commands:apply",
    "dashboard": "kproxy.cli.lab_dashboard:dashboard",
    "down": "kproxy.cli.lab_up:down",
    "exec": "kproxy.cli.lab_commands:exec_",
    "graph": "kproxy.cli.lab_show:graph",
    "kubectl": "kproxy.cli.lab_commands:kubectl",
    "list": "kproxy.cli.lab_up:list_",
    "logs": "kproxy.cli.lab_commands:logs",
    "shell": "kproxy.cli.lab_commands:shell",
    "status": "kproxy.cli.lab_show:status",
    "up": "kproxy.cli.lab_up:up",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def lab() -> None:
    """Run a whole cluster in a lab: nodes, control plane, store, DNS, clients outside.

    \b
    kproxy lab up --detach             start one, with 2 nodes
    kproxy lab apply -f shop.yaml      run something in it
    kproxy lab kubectl get pods        look at it as at any cluster
    kproxy lab status                  who runs where, who leads
    kproxy lab exec outside1 -- curl http://192.168.50.11:30080
    kproxy lab down

    Hosts are network namespaces, containers are processes on this machine's file system. Where
    this machine's kernel has no IPVS, the lab lives in an embedded kernel. See docs/lab.md.
    """
