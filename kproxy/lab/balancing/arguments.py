"""The command line of the balancer."""

import argparse
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from kproxy.api import addresses
from kproxy.api.durations import Duration
from kproxy.desired.model import Family, Prefix
from kproxy.lab.site import API_PORT, BALANCERS, BALANCERS6, EDGE, OUTSIDE, OUTSIDE6

from .addresses import Network
from .health import NODE_TERMS, Terms
from .kernelside import MODES

HEALTH_ADDRESS = "127.0.0.1:10258"
"""The port of Kubernetes' cloud controller manager."""


def parse(words: Sequence[str] | None, about: str | None) -> argparse.Namespace:
    """Return the options; ends the process with a message if they are wrong.

    ``ranges`` are networks of addresses to be given, ``beyond`` those whose clients keep their
    address by family, ``node_terms`` how nodes are asked.
    """
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.balancer", description=about)
    add = parser.add_argument
    add("--kubeconfig", type=Path, required=True, metavar="FILE")
    add("--api-address", default="", type=_address, help="the API servers' one address")
    add("--api-port", type=int, default=API_PORT)
    add("--api-server", type=_server, action="append", default=[], metavar="ADDRESS:PORT")
    add("--range", type=_network, action="append", dest="ranges", metavar="CIDR")
    add("--beyond", type=_network, action="append", metavar="CIDR")
    add("--node", default=EDGE, help="the name of this host")
    add("--mode", choices=MODES, default="", help="default: the first that the kernel can do")
    add("--state", type=Path, metavar="FILE", help="what is known, for the next start")
    add("--health-bind-address", default=HEALTH_ADDRESS, metavar="HOST:PORT")
    for name, seconds in (("period", NODE_TERMS.period), ("timeout", NODE_TERMS.timeout)):
        default = Duration(seconds)
        add(f"--node-check-{name}", type=Duration.parse, default=default, metavar=default.text)
    add("--node-check-fall", type=int, default=NODE_TERMS.fall, metavar="TIMES")
    options = parser.parse_args(words)
    options.ranges = options.ranges or [BALANCERS, BALANCERS6]
    beyond = options.beyond or [OUTSIDE, OUTSIDE6]
    options.beyond = {
        family: tuple(Prefix(str(one)) for one in beyond if _family(one) is family)
        for family in Family
    }
    options.node_terms = Terms(
        period=options.node_check_period,
        timeout=options.node_check_timeout,
        fall=options.node_check_fall,
    )
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if len({port for _, port in options.api_server}) > 1:
        parser.error("--api-server: all must listen at the same port")
    if bool(options.api_address) is not bool(options.api_server):
        parser.error("--api-address and --api-server go together")
    if options.node_check_period <= 0 or options.node_check_timeout <= 0:
        parser.error("--node-check-period and --node-check-timeout must be positive")
    if options.node_check_fall < 1:
        parser.error("--node-check-fall must be at least 1")


def _family(network: Network) -> Family:
    return Family.IPV4 if network.version == 4 else Family.IPV6


def _network(text: str) -> Network:
    parsed = addresses.parse_network(text)
    if parsed is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no network (CIDR)")
    return ip_network(parsed.text)


def _address(text: str) -> str:
    parsed = addresses.parse_address(text)
    if parsed is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no address")
    return parsed.text


def _server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT")
    return _address(host.strip("[]")), int(port)
