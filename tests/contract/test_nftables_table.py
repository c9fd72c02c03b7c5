"""The table of nftables mode in a kernel: tools can read it, clients keep their endpoints."""

import subprocess
from collections.abc import Callable
from typing import Any

import cluster_states
import pytest

from kproxy.backends import base
from kproxy.backends.nftables.backend import Backend
from kproxy.desired.model import Family

pytestmark = [pytest.mark.kernel, pytest.mark.needs_tool("nft")]


@pytest.fixture
def started(opened: Callable[[Any], Any]) -> Callable[[Family], Backend]:
    """Return a function that makes a backend, as a proxy does that starts."""

    def start(family: Family = Family.IPV4) -> Backend:
        backend: Backend = opened(base.loader("nftables")(family, base.Options()))
        return backend

    return start


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("name", cluster_states.STATES)
def test_the_tool_can_list_every_state(
    started: Callable[[Family], Backend], name: str, family: Family
) -> None:
    """Should it fail, it would for all tables of the node."""
    assert started(family).sync(cluster_states.build(name, family)).failures == ()
    told = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    assert "kube-proxy" in told.stdout


def clients_of(endpoint: int) -> str:
    return f"affinity-tcp-10.96.0.10-80-10.128.0.{endpoint}-8080"


def remembered() -> set[str]:
    """Return which clients the kernel remembers, by endpoint."""
    command = ["nft", "list", "table", "ip", "kube-proxy"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, name = set(), ""
    for line in map(str.strip, told.splitlines()):
        if line.startswith(("set ", "map ")):  # which comes first is the kernel's business
            name = line.split()[1]
        if line.startswith("elements") and name.startswith("affinity-"):
            found.add(f"{name} {line.split()[3]}")
    return found


def test_clients_are_remembered_while_their_endpoint_lives(
    started: Callable[[Family], Backend],
) -> None:
    def state(*numbers: int) -> Any:
        sticky = cluster_states.STATES["affinity"]()[:1]
        return cluster_states.state_of([*sticky, *cluster_states.pods(*numbers)])

    backend = started(Family.IPV4)
    backend.sync(state(2, 3))
    for endpoint in (2, 3):
        element = f"{{ 198.51.100.{endpoint} timeout 600s }}"
        command = f"add element ip kube-proxy {clients_of(endpoint)} {element}"
        subprocess.run(["nft", command], check=True)
    both = {f"{clients_of(n)} 198.51.100.{n}" for n in (2, 3)}
    assert remembered() == both
    backend.sync(state(2, 3, 4))
    assert remembered() == both
    again = started(Family.IPV4)
    again.reread()
    assert again.sync(state(2, 3, 4)).writes == 0
    assert remembered() == both
    again.sync(state(2, 4))
    assert remembered() == {f"{clients_of(2)} 198.51.100.2"}
    again.sync(state(2, 3, 4))
    assert remembered() == {f"{clients_of(2)} 198.51.100.2"}


def test_a_table_that_the_tool_has_made_otherwise_is_replaced(
    started: Callable[[Family], Backend],
) -> None:
    """A piece of what kube-proxy 1.36 makes, with a service in it."""
    script = """
        table ip kube-proxy {
          map service-ips {
            type ipv4_addr . inet_proto . inet_service : verdict
            elements = { 10.96.0.10 . tcp . 80 : goto service-A }
          }
          chain endpoint-A {
            ip saddr 10.128.0.9 meta mark set meta mark or 0x4000
            meta l4proto tcp dnat to 10.128.0.9:80
          }
          chain service-A {
            numgen random mod 1 vmap { 0 : goto endpoint-A }
          }
          chain services {
            ip daddr . meta l4proto . th dport vmap @service-ips
          }
          chain nat-prerouting {
            type nat hook prerouting priority dstnat
            jump services
          }
        }
    """
    backend = started(Family.IPV4)
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
    state = cluster_states.build("two endpoints")
    assert backend.sync(state).failures == ()
    assert backend.differences(state) == []
    told = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert "service-A" not in told.stdout
    assert "10.128.0.9" not in told.stdout


def test_other_tables_are_left_alone(started: Callable[[Family], Backend]) -> None:
    other = "table inet mine {\n\tchain input {\n\t\ttcp dport 7 drop\n\t}\n}\n"
    subprocess.run(["nft", "-f", "-"], input=other, text=True, check=True)
    backend = started(Family.IPV4)
    backend.sync(cluster_states.build("fifty services"))
    assert backend.cleanup() > 0
    told = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    assert told.stdout == other
