"""What ``kproxy doctor`` finds out: one function for each group of checks, each check one line.

Nothing is left behind: kernel features are tried in a namespace that vanishes (``netns.kernels``),
and no module is loaded that is not loaded by the feature being tried.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from netns import errors as netns_errors
from netns.kernels import base, native, probe, registry, uml
from netns.kernels import build as building

# tool -> (arguments that print its version, Debian package, what it is for); ipvsadm needs the
# module ip_vs even for that, so the package is asked instead
TOOLS = {
    "ip": (["-V"], "iproute2", "looking into the lab"),
    "tc": (["-V"], "iproute2", "impairing links"),
    "iptables": (["-V"], "iptables", "mode iptables"),
    "ip6tables": (["-V"], "iptables", "mode iptables with IPv6"),
    "iptables-legacy": (["-V"], "iptables", "mode iptables on kernels without nf_tables for IP"),
    "nft": (["-v"], "nftables", "looking into rules"),
    "ipset": (["-v"], "ipset", "mode ipvs"),
    "ipvsadm": ([], "ipvsadm", "looking into IPVS, and the peer in bench ipvs"),
    "conntrack": (["-V"], "conntrack", "looking into tracked connections"),
    "modprobe": (["-V"], "kmod", "loading modules"),
    "ethtool": (["--version"], "ethtool", "looking at network cards"),
}
FEATURES = {
    "dummy": "mode ipvs holds its addresses on one",
    "veth": "the wires of the lab",
    "bridge": "the switches of the lab",
    "netem": "impaired links",
    "nftables": "tables of family ip",
    "iptables-nft": "iptables over nf_tables",
    "iptables-legacy": "iptables over ip_tables",
    "ipset": "sets of addresses in rules",
    "conntrack": "connection tracking",
}
NEEDS_UML = "the lab can use an embedded kernel: --kernel uml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report. ``remedy`` is what to do if it is not ``ok``."""

    group: str
    name: str
    ok: bool
    detail: str
    remedy: str = ""


def native_kernel() -> Iterator[Check]:
    """Check what this machine's kernel has."""
    group = f"native kernel {os.uname().release}"
    root = os.geteuid() == 0
    yield Check(
        group=group,
        name="root",
        ok=root,
        detail="yes" if root else "no: this kernel cannot be used by you",
        remedy="run it as root; an embedded kernel does without",
    )
    loaded = Path("/proc/net/ip_vs").exists()
    has = loaded or native.has_ipvs(load=False)
    detail = (
        "in use or built in" if loaded else "as a module" if has else "neither module nor built in"
    )
    yield Check(group=group, name="IPVS", ok=has, detail=detail, remedy=NEEDS_UML)
    found = probe.probe(tuple(FEATURES))
    forbidden = found.get(probe.NAMESPACE, "")
    yield Check(
        group=group,
        name="network namespaces",
        ok=not forbidden,
        detail=forbidden or "can be made" + ("" if root else " in a user namespace"),
        remedy="run it as root, in a container with CAP_SYS_ADMIN",
    )
    for name, problem in found.items():
        if name != probe.NAMESPACE:
            detail = problem or FEATURES[name]
            yield Check(group=group, name=name, ok=not problem, detail=detail, remedy=NEEDS_UML)


def embedded_kernel(*, boot: bool) -> Iterator[Check]:
    """Check the embedded kernels, with ``boot`` by running a command in the preferred one."""
    group = "embedded kernel"
    yield own_kernel(group)
    debian = uml.Uml(uml.debian())
    lacking = debian.obstacle()
    package = package_version("user-mode-linux")
    yield Check(
        group=group,
        name="user-mode-linux",
        ok=lacking is None,
        detail=lacking.reason if lacking else f"{debian.describe()}, package {package}",
        remedy=lacking.remedy if lacking else "",
    )
    preferred = uml.Uml(registry.preferred())
    if preferred.obstacle() is None and boot and not base.inside_guest():
        yield boots(preferred, group)


def own_kernel(group: str) -> Check:
    """Check whether a kernel was built here; say what it has, or would bring."""
    built = registry.built_kernels()
    if built:
        has = ", ".join(built[0].features)
        more = f"; and {len(built) - 1} more" if len(built) > 1 else ""
        detail = f"{built[0].name}: {has}{more} (`kproxy kernel list`)"
    else:
        detail = (
            "none was built here; it brings virtual time (runs that are the same to the last"
            " digit), nftables, and iptables over nf_tables"
        )
    missing = building.missing_packages()
    first = f"apt-get install {' '.join(missing)}, then " if missing else ""
    return Check(
        group=group,
        name="kernel of our own",
        ok=bool(built),
        detail=detail,
        remedy=f"{first}kproxy kernel build (6 minutes; scripts/install --kernel does all of it)",
    )


def boots(provider: uml.Uml, group: str) -> Check:
    """Boot the embedded kernel and see whether it has IPVS."""
    started = time.monotonic()
    test = base.Command(argv=("test", "-e", "/proc/net/ip_vs"))
    try:
        code = provider.run(test, base.Limits(memory=256 * base.MIB, time=90))
    except (netns_errors.NetnsError, OSError) as error:
        remedy = getattr(error, "remedy", "")
        return Check(group=group, name="boots", ok=False, detail=str(error), remedy=remedy)
    seconds = time.monotonic() - started
    detail = f"in {seconds:.1f} s, with IPVS: {provider.describe()}"
    if code != 0:
        return Check(group=group, name="boots", ok=False, detail="yes, but has no IPVS")
    return Check(group=group, name="boots", ok=True, detail=detail)


def tools() -> Iterator[Check]:
    """Check the programs that the lab or its users call."""
    for name, (arguments, package, purpose) in TOOLS.items():
        program = base.find_program(name)
        if program is None:
            detail = f"not found; it is for {purpose}"
        elif arguments:
            detail = tool_version([program, *arguments])
        else:
            detail = package_version(package)
        yield Check(
            group="tools",
            name=name,
            ok=program is not None,
            detail=detail,
            remedy=f"apt-get install {package}",
        )


def tool_version(command: list[str]) -> str:
    """Return the version in the first line that a program prints, or the line."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    line = (done.stdout.strip().splitlines() or [""])[0]
    found = re.search(r"\bv?(\d+\.\d+[\w.]*)(?:.*\((legacy|nf_tables)\))?", line)
    return " ".join(filter(None, found.groups())) if found else line


def python() -> Iterator[Check]:
    """Check the interpreter and the packages that kproxy demands."""
    version = platform.python_version()
    yield Check(
        group="python",
        name="python",
        ok=sys.version_info >= (3, 11),
        detail=f"{version}, {sys.executable}",
        remedy="apt-get install python3 (3.11 or newer)",
    )
    for demand in metadata.requires("kproxy") or []:
        name, bound = re.fullmatch(r"([\w.-]+)\s*([^;]*)(?:;.*)?", demand).groups()  # type: ignore[union-attr]  # setuptools wrote it
        if "extra ==" in demand:
            continue
        try:
            detail, ok = metadata.version(name), True
        except metadata.PackageNotFoundError:
            detail, ok = f"not installed; {name} {bound} is needed", False
        yield Check(group="python", name=name, ok=ok, detail=detail, remedy="scripts/install")


def machine() -> Iterator[Check]:
    """Check processors, memory, and the room for an embedded kernel's memory."""
    allowed = os.sched_getaffinity(0)
    yield Check(
        group="machine",
        name="CPUs",
        ok=True,
        detail=f"{len(allowed)} of {os.cpu_count()} may be used",
    )
    available = available_memory()
    wanted = base.Limits().memory
    yield Check(
        group="machine",
        name="memory",
        ok=available > wanted,
        detail=f"{available // base.MIB} MiB available",
        remedy="close something, or give embedded kernels less with --memory",
    )
    try:
        directory = uml.memory_directory(wanted, uml.memory_candidates())
        yield Check(
            group="machine",
            name="memory file",
            ok=True,
            detail=f"{wanted // base.MIB} MiB fit into {directory}",
        )
    except netns_errors.KernelUnusable as error:
        yield Check(
            group="machine",
            name="memory file",
            ok=False,
            detail=error.message,
            remedy=error.remedy,
        )


def available_memory() -> int:
    """Return the bytes that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def network_cards() -> Iterator[Check]:
    """Describe the physical network cards, which tests with real wires can use."""
    default_route = default_route_devices()
    cards = [
        card for card in sorted(Path("/sys/class/net").glob("*")) if (card / "device").exists()
    ]
    if not cards:
        yield Check(group="network cards", name="none", ok=True, detail="the lab needs none")
    for card in cards:
        driver = (card / "device" / "driver").resolve().name
        mbits = setting(card / "speed")
        speed = f"{mbits} Mbit/s" if mbits.isdigit() else "speed unknown"
        state = setting(card / "operstate")
        role = "has the default route: not for the lab" if card.name in default_route else "spare"
        yield Check(
            group="network cards",
            name=card.name,
            ok=True,
            detail=f"{driver}, {speed}, {state}, {role}",
        )


def default_route_devices() -> set[str]:
    """Return the names of the devices over which a default route of IPv4 or IPv6 leads."""
    devices = set()
    for line in setting(Path("/proc/net/route")).splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[7] == "00000000":
            devices.add(fields[0])
    for line in setting(Path("/proc/net/ipv6_route")).splitlines():
        fields = line.split()
        if fields[1] == "00" and set(fields[0]) == {"0"}:
            devices.add(fields[9])
    return devices - {"lo"}


def setting(path: Path) -> str:
    """Return what a file of the kernel says; an empty string if it does not."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def package_version(name: str) -> str:
    """Return the version of an installed Debian package, or "unknown"."""
    query = shutil.which("dpkg-query")
    if query is None:
        return "unknown"
    done = subprocess.run(
        [query, "-W", "-f", "${Version}", name], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
