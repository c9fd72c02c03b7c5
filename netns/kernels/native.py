"""The kernel that this machine runs.

Features are asked for, not names: what counts is what the kernel does when it is asked to.
"""

import os
import subprocess
from pathlib import Path

from netns.kernels import base, probe

NAME = "native"


class Native:
    """Runs commands where we are, if this kernel has what a lab needs and we may use it.

    ``whole``: a kernel without IPVS will not do. Who names this kernel takes it as it is.
    """

    name = NAME
    kernel_name = None
    clocks = (base.Clock.REAL,)

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole

    def describe(self) -> str:
        """Return the kernel's release."""
        return f"this kernel ({os.uname().release})"

    def obstacle(self) -> base.Obstacle | None:
        """Return what this kernel or this user lacks. Loads the module ip_vs if that helps."""
        if os.geteuid() != 0:
            return base.Obstacle(
                f"not root, as {self.describe()} demands for network namespaces",
                "run it as root, or with --kernel uml",
            )
        if self._whole and not has_ipvs():
            return base.Obstacle(
                f"{self.describe()} has no IPVS",
                "use --kernel uml, or a kernel that has the module ip_vs",
            )
        found = probe.probe(("dummy", "veth") if self._whole else ("veth",))
        missing = [name for name, problem in found.items() if problem]
        if missing:
            return base.Obstacle(
                f"{self.describe()} cannot make devices of kind {', '.join(missing)}"
                if "namespace" not in missing
                else f"network namespaces are forbidden here ({found['namespace']})",
                "use --kernel uml",
            )
        return None

    def run(self, command: base.Command, limits: base.Limits) -> int:
        """Become the command. The limits are for embedded kernels only.

        Of what is random, a seed fixes only what programs draw from it, and Python's hashes.
        """
        environment = os.environ | base.seed_variables(command.seed)
        os.execvpe(command.argv[0], command.argv, environment)  # noqa: S606  no shell is wanted


def has_ipvs(*, load: bool = True) -> bool:
    """Tell whether this kernel has IPVS. Without ``load``: has, or has a module of it."""
    if Path("/proc/net/ip_vs").exists():
        return True
    modprobe = base.find_program("modprobe")
    if modprobe is None:
        return False
    how = [] if load else ["-n"]
    done = subprocess.run([modprobe, "-q", *how, "ip_vs"], check=False, stdin=subprocess.DEVNULL)
    return done.returncode == 0 and (not load or Path("/proc/net/ip_vs").exists())
