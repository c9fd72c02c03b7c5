"""``kproxy bench ipvs``: how fast an empty IPVS table is programmed, beside ``ipvsadm --restore``.

Both start from what they are given, we from finished objects, ipvsadm from its input text, and
both end when the kernel has taken all. Each works in a network namespace of its own, in a child
process of its own, so that the machine's table is not touched and nothing is left behind.
Afterwards the table is read back: a measurement counts only if it holds what was asked for.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from kproxy.cli.kernel_option import KernelChoice, kernel_options, run_on_kernel
from kproxy.errors import KproxyError, MeasurementError, Unsupported, UsageError
from kproxy.kernel.execer import Execer
from kproxy.kernel.inet import Protocol
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import (
    AddService,
    DestinationConfig,
    DestinationKey,
    ServiceConfig,
    ServiceKey,
)
from kproxy.lab import freshnet
from netns.process import end_with_parent

SERVICE_NETWORK = ipaddress.ip_network("10.64.0.0/12")
POD_NETWORK = ipaddress.ip_network("10.128.0.0/9")
IPVSADM_TIMEOUT_S = 3600.0

Table = list[tuple[ServiceKey, list[DestinationKey]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one run took, in seconds."""

    services: int
    endpoints: int
    seconds: float
    ipvsadm_seconds: float

    @property
    def ratio(self) -> float:
        """Our time as a part of ipvsadm's."""
        return self.seconds / self.ipvsadm_seconds


def measure(services: int, endpoints: int) -> Measurement:
    """Program ``services`` × ``endpoints`` both ways, and compare the tables with what was wanted.

    UsageError: too few or too many of them, no ipvsadm, no root. Unsupported: no IPVS in this
    kernel. MeasurementError: a table was not what it should be.
    """
    check(services, endpoints)
    return Measurement(
        services=services,
        endpoints=endpoints,
        seconds=in_fresh_namespace(lambda: _ours(services, endpoints)),
        ipvsadm_seconds=in_fresh_namespace(lambda: _ipvsadm(services, endpoints)),
    )


def check(services: int, endpoints: int) -> None:
    """Raise UsageError if it cannot be measured, for a reason that any kernel shares."""
    if services < 1:
        raise UsageError(f"--services {services}: at least 1 is needed")
    if endpoints < 0:
        raise UsageError(f"--endpoints {endpoints}: a number of endpoints is 0 or more")
    most = SERVICE_NETWORK.num_addresses - 1
    if services > most:
        raise UsageError(f"--services {services}: there are addresses for {most}")
    most = POD_NETWORK.num_addresses - 1
    if services * endpoints > most:
        raise UsageError(
            f"--services {services} --endpoints {endpoints}: there are addresses for {most}"
        )
    if shutil.which("ipvsadm") is None:
        raise UsageError(
            "ipvsadm is not in PATH", remedy="apt-get install ipvsadm; it is in /usr/sbin"
        )


def table(services: int, endpoints: int) -> Table:
    """Return the virtual services with their real servers; no endpoint serves two of them."""
    first_service = int(SERVICE_NETWORK.network_address) + 1
    first_pod = int(POD_NETWORK.network_address) + 1
    address = ipaddress.IPv4Address
    return [
        (
            ServiceKey(Protocol.TCP, address(first_service + number), 80),
            [
                DestinationKey(address(first_pod + number * endpoints + at), 8080)
                for at in range(endpoints)
            ],
        )
        for number in range(services)
    ]


def _ours(services: int, endpoints: int) -> float:
    wanted = table(services, endpoints)
    service, server = ServiceConfig("rr"), DestinationConfig(weight=1)
    operations = [
        AddService(key, service, b"".join(destinations), server) for key, destinations in wanted
    ]
    with IPVS() as ipvs:
        ipvs.info()  # Opens the socket and loads the module: neither is programming.
        begin = time.monotonic()
        results = ipvs.run(operations)
        seconds = time.monotonic() - begin
        for result in results:
            if result is not None:
                raise result
        _verify(ipvs, wanted, "kproxy")
    return seconds


def _ipvsadm(services: int, endpoints: int) -> float:
    wanted = table(services, endpoints)
    lines = []
    for key, destinations in wanted:
        name = f"-t {key.address}:{key.port}"
        lines.append(f"-A {name} -s rr")
        lines.extend(f"-a {name} -r {at.address}:{at.port} -m -w 1" for at in destinations)
    text = "\n".join(lines).encode() + b"\n"
    with IPVS() as ipvs:
        ipvs.info()
        begin = time.monotonic()
        done = Execer().run(["ipvsadm", "--restore"], text, timeout_s=IPVSADM_TIMEOUT_S)
        seconds = time.monotonic() - begin
        if done.returncode:
            raise MeasurementError(f"ipvsadm --restore failed: {done.stderr.strip()}")
        _verify(ipvs, wanted, "ipvsadm")
    return seconds


def _verify(ipvs: IPVS, wanted: Table, who: str) -> None:
    """Raise MeasurementError unless the table is the one that both are to make."""
    service, server = ServiceConfig("rr"), DestinationConfig(weight=1)
    have = {
        key: (entry.config, {at: found.config for at, found in entry.destinations.items()})
        for key, entry in ipvs.dump().items()
    }
    want = {key: (service, dict.fromkeys(servers, server)) for key, servers in wanted}
    if have != want:
        wrong = [key for key in want.keys() | have.keys() if have.get(key) != want.get(key)]
        raise MeasurementError(
            f"the table that {who} made is wrong in {len(wrong)} virtual services: {wrong[0]}, …"
        )


def in_fresh_namespace(action: Callable[[], float]) -> float:
    """Call ``action`` in a child process with an empty network namespace; return what it returns.

    KproxyError of the same kind and text that it raised. UsageError: no right to make namespaces.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _child(action, writer)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _pid, status = os.waitpid(child, 0)
    if not answer:
        code = os.waitstatus_to_exitcode(status)
        raise MeasurementError(f"the measuring process ended with status {code}")
    told: dict[str, Any] = json.loads(answer)
    if "error" in told:
        raise _KINDS.get(told["kind"], MeasurementError)(told["error"], remedy=told["remedy"])
    return float(told["value"])


def _child(action: Callable[[], float], writer: int) -> None:
    """Answer on the pipe and end, whatever happens; never return into the parent's code."""
    answer: dict[str, Any] = {}
    try:
        end_with_parent(signal.SIGKILL)
        freshnet.enter_fresh()
        answer = {"value": action()}
    except KproxyError as error:
        kind = type(error).__name__
        answer = {"error": error.message, "remedy": error.remedy, "kind": kind}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}", "remedy": "", "kind": ""}
    finally:
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(answer).encode())
        os._exit(0)


_KINDS: Mapping[str, type[KproxyError]] = {
    "UsageError": UsageError,
    "Unsupported": Unsupported,
}


@click.command()
@click.option("--services", type=int, default=1000, show_default=True, help="Virtual services.")
@click.option("--endpoints", type=int, default=10, show_default=True, help="Of each service.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@kernel_options
def ipvs(services: int, endpoints: int, as_json: bool, kernel: KernelChoice) -> None:
    """Program an empty IPVS table, and do the same with `ipvsadm --restore`."""
    check(services, endpoints)
    run_on_kernel(kernel)
    measured = measure(services, endpoints)
    if as_json:
        click.echo(json.dumps(as_object(measured)))
        return
    click.echo("\n".join(as_table(measured)))


def as_object(measured: Measurement) -> dict[str, float]:
    """Return the measurement under the names of its JSON form."""
    return {
        "services": measured.services,
        "endpoints": measured.endpoints,
        "seconds": round(measured.seconds, 6),
        "ipvsadm_seconds": round(measured.ipvsadm_seconds, 6),
        "ratio": round(measured.ratio, 6),
    }


def as_table(measured: Measurement) -> list[str]:
    """Return the measurement as lines for a reader."""
    objects = measured.services * (1 + measured.endpoints)
    lines = [
        f"{measured.services} services with {measured.endpoints} endpoints each,"
        f" {objects} objects, into an empty IPVS table",
        "",
        f"{'':<18}  {'seconds':>9}  {'objects/s':>10}",
    ]
    for who, seconds in (
        ("kproxy", measured.seconds),
        ("ipvsadm --restore", measured.ipvsadm_seconds),
    ):
        lines.append(f"{who:<18}  {seconds:>9.3f}  {objects / seconds:>10,.0f}")
    lines += ["", f"ratio {measured.ratio:.3f}; read back, both tables hold what was asked for"]
    return lines
