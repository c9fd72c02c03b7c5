"""What the proxy sets of its machine beside rules: connection tracking, and its own OOM score.

No packet waits for it, so it comes after the first sync.
"""

import errno
from pathlib import Path

from kproxy.agent.settings import CONNTRACK_MAX, Settings
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.sysctl import SysctlClient
from kproxy.logs import Log

BUCKETS = "net/netfilter/nf_conntrack_buckets"
CONNECTIONS_PER_BUCKET = 4
"""As kube-proxy: the hash table is made so large that its lists have no more than so many."""

_OOM_SCORE = Path("/proc/self/oom_score_adj")


def tune(settings: Settings, log: Log, sysctl: SysctlClient | None = None) -> None:
    """Set all that is configured; what cannot be set is logged."""
    sysctl = sysctl or sysctls.Sysctl()
    for key, value in settings.sysctls:
        try:
            sysctls.ensure(sysctl, key, value)
            if key == CONNTRACK_MAX:
                _fit_buckets(sysctl, value)
        except NotFound:
            log.debug("no such switch in this kernel", key=key)
        except KernelError as error:
            if belongs_to_machine(key, error):
                log.debug("this switch is the machine's", key=key)
            else:
                log.warning("setting a kernel switch failed", key=key, error=str(error))


def belongs_to_machine(key: str, error: KernelError) -> bool:
    """Return whether a switch failed because only the first network namespace may write it."""
    return key in (CONNTRACK_MAX, BUCKETS) and error.errno == errno.EACCES


def _fit_buckets(sysctl: SysctlClient, most: int) -> None:
    """Make the hash table larger if it is too small for so many connections; never smaller."""
    wanted = most // CONNECTIONS_PER_BUCKET
    if int(sysctl.get(BUCKETS)) < wanted:
        sysctl.set(BUCKETS, wanted)


def set_oom_score(score: int, log: Log, path: Path = _OOM_SCORE) -> None:
    """Tell the kernel how ready it is to be to kill this process for memory."""
    try:
        if path.read_text().strip() != str(score):
            path.write_text(str(score))
    except OSError as error:
        log.debug("setting oom_score_adj failed", score=score, error=error.strerror or str(error))
