"""The command line of an etcd member, for those who start one.

The defaults are etcd's own: heartbeats every 100 ms, an election after a second of silence.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from kproxy import errors
from kproxy.api.addresses import with_port

CLIENT_PORT, PEER_PORT = 2379, 2380
HEARTBEAT_MS, ELECTION_MS = 100, 1000
KEPT_REVISIONS = 10_000


def program() -> str:
    """Return the path of etcd. Raises Unsupported."""
    found = shutil.which("etcd")
    if found is None:
        raise errors.Unsupported("etcd is not installed", remedy="run scripts/install --etcd")
    return found


def command(
    name: str,
    data: Path,
    peers: Mapping[str, str],
    *,
    program: str = "etcd",
    heartbeat_ms: int = HEARTBEAT_MS,
    election_ms: int = ELECTION_MS,
    metrics_port: int = 0,
) -> list[str]:
    """Return the command that runs a member of a new cluster, or of one that it was in before.

    ``program``: etcd, or a copy of it. ``peers`` are names and addresses of all members, this
    one's too. ``data`` is its directory; etcd takes 128 MB for it at once, where the file system
    keeps no holes (tmpfs does not). ``metrics_port``: another port for metrics, which asks for
    no certificate; 0: none.
    """
    own = peers[name]
    client, peer = _url(own, CLIENT_PORT), _url(own, PEER_PORT)
    everyone = (f"{one}={_url(at, PEER_PORT)}" for one, at in peers.items())
    metrics = [f"--listen-metrics-urls={_url(own, metrics_port)}"] if metrics_port else []
    return [
        program,
        f"--name={name}",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={','.join(everyone)}",
        "--initial-cluster-state=new",
        "--enable-v2=false",
        "--logger=zap",
        "--log-outputs=stderr",
        f"--heartbeat-interval={heartbeat_ms}",
        f"--election-timeout={election_ms}",
        "--auto-compaction-mode=revision",
        f"--auto-compaction-retention={KEPT_REVISIONS}",
        *metrics,
    ]


def endpoints(peers: Mapping[str, str]) -> list[str]:
    """Return where clients find the members."""
    return [_url(address, CLIENT_PORT) for address in peers.values()]


def _url(address: str, port: int) -> str:
    return f"http://{with_port(address, port)}"
