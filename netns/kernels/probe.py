"""Finds out what a kernel can do by doing it, in a network namespace that vanishes with the probe.

The probe is a child process which leaves for a namespace of its own; whatever it makes there
(devices, tables, rules) is gone when it ends, however it ends.
"""

import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netns.kernels import base

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
NAMESPACE = "namespace"
# iptables would make a lock file on the host, where ordinary users may not even do so.
NO_LOCK_FILE = {"XTABLES_LOCKFILE": "/dev/null"}

# feature -> the commands that use it, in order, in a fresh namespace
FEATURES: Mapping[str, Sequence[Sequence[str]]] = {
    "dummy": [["ip", "link", "add", "probe0", "type", "dummy"]],
    "veth": [["ip", "link", "add", "probe1", "type", "veth", "peer", "name", "probe2"]],
    "bridge": [["ip", "link", "add", "probe3", "type", "bridge"]],
    "netem": [
        ["ip", "link", "set", "lo", "up"],
        ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
    ],
    "nftables": [
        ["nft", "add table ip probe; add chain ip probe c { type nat hook output priority 0; }"]
    ],
    "iptables-nft": [["iptables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "ACCEPT"]],
    "iptables-legacy": [["iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-j", "ACCEPT"]],
    "ipset": [["ipset", "create", "probe", "hash:ip,port"]],
    "conntrack": [["conntrack", "-C"]],
}


def probe(features: Sequence[str]) -> dict[str, str]:
    """Return for each feature why it does not work here, or an empty string if it does.

    If there can be no namespace at all, the only entry is ``namespace`` with the reason.
    """
    return in_namespace(lambda: {name: attempt(FEATURES[name]) for name in features})


def attempt(commands: Sequence[Sequence[str]]) -> str:
    """Run commands; return the first complaint, or an empty string."""
    for command in commands:
        program = base.find_program(command[0])
        if program is None:
            return f"no program {command[0]}"
        try:
            done = subprocess.run(
                [program, *command[1:]],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
                timeout=20,
                env=os.environ | NO_LOCK_FILE,
            )
        except subprocess.TimeoutExpired:
            return f"{command[0]} does not answer"
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"{command[0]} failed"]
            return lines[0]
    return ""


def in_namespace(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return what ``work`` returns when it is called in a child in a fresh network namespace."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            problem = _unshare()
            answer = {NAMESPACE: problem} if problem else work()
            with os.fdopen(writer, "w") as stream:
                json.dump(answer, stream)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {NAMESPACE: "the probe failed"}


def _unshare() -> str:
    """Leave for a new network namespace (as an ordinary user, in a new user namespace)."""
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.geteuid() == 0
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET if root else CLONE_NEWNET | CLONE_NEWUSER) != 0:
        return os.strerror(ctypes.get_errno())
    if not root:
        for name, value in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            Path("/proc/self", name).write_text(value)
    return ""
