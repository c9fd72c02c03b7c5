"""Connection tracking as configured, and what is said where that is impossible."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kproxy.agent.settings import CONNTRACK_MAX, from_config
from kproxy.agent.tuning import BUCKETS, set_oom_score, tune
from kproxy.api.config import Conntrack, KubeProxyConfiguration, Linux, with_defaults
from kproxy.errors import KernelError
from kproxy.kernel.sysctl import FakeSysctl
from kproxy.logs import Log

LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"
CORES = len(os.sched_getaffinity(0))


def tuned(sysctl: FakeSysctl, **conntrack: Any) -> list[dict[str, Any]]:
    output = io.StringIO()
    config = KubeProxyConfiguration(
        hostname_override="n", linux=Linux(conntrack=Conntrack(**conntrack))
    )
    tune(from_config(with_defaults(config)), Log("test", "debug", output), sysctl)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def kernel(buckets: int = 1024) -> FakeSysctl:
    return FakeSysctl({CONNTRACK_MAX: "262144", LIBERAL: "0", BUCKETS: str(buckets)})


def test_the_limit_is_by_processors_but_not_below_the_least() -> None:
    sysctl = kernel()
    tuned(sysctl, max_per_core=1000, min=10)
    assert sysctl.values[CONNTRACK_MAX] == str(1000 * CORES)
    tuned(sysctl, max_per_core=1, min=131072)
    assert sysctl.values[CONNTRACK_MAX] == "131072"


def test_zero_leaves_the_limit_as_it_is() -> None:
    sysctl = kernel()
    tuned(sysctl, max_per_core=0)
    assert sysctl.values[CONNTRACK_MAX] == "262144"


def test_the_hash_table_grows_with_the_limit_and_never_shrinks() -> None:
    for before, after in ((1024, 250), (100, 250)):
        sysctl = kernel(buckets=before)
        tuned(sysctl, max_per_core=1, min=1000)
        assert sysctl.values[BUCKETS] == str(max(before, after))


def test_packets_outside_the_window_only_if_asked_for() -> None:
    for liberal in (False, True):
        sysctl = kernel()
        tuned(sysctl, tcp_be_liberal=liberal)
        assert sysctl.values[LIBERAL] == str(int(liberal))


@pytest.mark.parametrize(("number", "level"), [(errno.EACCES, "debug"), (errno.EROFS, "warning")])
def test_a_limit_that_is_the_machines_is_no_trouble(
    number: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(key: str, value: object) -> NoReturn:
        raise KernelError(f"write sysctl {key}", number, os.strerror(number))

    sysctl = kernel()
    monkeypatch.setattr(sysctl, "set", refuse)
    said = [line["level"] for line in tuned(sysctl) if line.get("key") == CONNTRACK_MAX]
    assert said == [level]


def test_the_oom_score_is_written_if_it_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "oom_score_adj"
    path.write_text("0\n")
    log = Log("test", stream=io.StringIO())
    set_oom_score(-999, log, path)
    assert path.read_text() == "-999"
    path.chmod(0o400)
    set_oom_score(-999, log, path)
    set_oom_score(-1, log, tmp_path / "missing")
