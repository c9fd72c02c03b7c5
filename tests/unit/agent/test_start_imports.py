"""What a restart of the proxy imports: each module here lengthens every restart."""

import subprocess
import sys

import pytest

HEAVY = {
    "_hashlib",
    "argparse",
    "asyncio",
    "calendar",
    "click",
    "concurrent.futures",
    "email",
    "http.client",
    "http.server",
    "locale",
    "logging",
    "multiprocessing",
    "psutil",
    "pyroute2",
    "rich",
    "scapy",
    "ssl",
    "subprocess",
    "tempfile",
    "typing_extensions",
    "unittest",
    "xml",
    "yaml",
}
"""Modules that nothing on the way to the first sync may import. (``subprocess`` is imported where
a tool is executed; that costs less than the execution itself.)"""

OTHER_ROOMS = ("kproxy.cli.main", "kproxy.controlplane", "kproxy.lab", "kproxy.reports",
               "kproxy.traffic", "netns")  # fmt: skip

MODES = ("ipvs", "iptables", "nftables")

LATER = {"kproxy.exposition", "kproxy.processmetrics"} | {
    f"kproxy.agent.{name}"
    for name in ("companions", "events", "metrics", "resync", "servicehealth", "tuning")
}
"""What the first sync does not wait for."""

MOST_OWN_MODULES = 100
"""Modules of this project. A new one needs a reason."""


def imported(mode: str) -> set[str]:
    program = (
        "import sys, kproxy.__main__\n"
        "kproxy.__main__._import_msgspec()\n"
        "import kproxy.cli.nodeproxy, kproxy.agent.daemon\n"
        "import kproxy.agent.settings, kproxy.client.rest\n"
        "from kproxy.backends.base import loader\n"
        f"loader({mode!r})\n"
        "print('\\n'.join(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_heavy_is_imported_before_the_first_sync(mode: str) -> None:
    modules = imported(mode)
    assert "kproxy.agent.daemon" in modules
    assert (HEAVY | LATER) & modules == set()
    assert [name for name in modules if name.startswith(OTHER_ROOMS)] == []
    others = tuple(f"kproxy.backends.{other}" for other in MODES if other != mode)
    assert [name for name in modules if name.startswith(others)] == []
    own = sorted(name for name in modules if name.startswith("kproxy"))
    assert len(own) <= MOST_OWN_MODULES, own
