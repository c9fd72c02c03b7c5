"""Network cards on the command line: which kernel has them, what is refused at once."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from kproxy import errors
from kproxy.cli import reproducing
from kproxy.cli.compare import _job, compare
from kproxy.cli.kernel_option import KernelChoice
from kproxy.cli.uplinks_option import on_this_machine
from kproxy.lab import comparison
from kproxy.lab.chain.settings import Parameters
from kproxy.lab.workload import Workload
from kproxy.traffic import resultset
from netns.kernels import base
from netns.uplink import Attachment, Uplink


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about a machine, also where they run in a guest."""
    monkeypatch.setattr(base, "inside_guest", lambda: False)


def test_cards_are_on_this_machine_s_kernel() -> None:
    for name in ("auto", "native"):
        found = on_this_machine(KernelChoice(name=name, clock=None))
        assert (found.name, found.clock) == ("native", base.Clock.REAL)


@pytest.mark.parametrize(
    "choice",
    [KernelChoice(name="uml", clock=None), KernelChoice(name="auto", clock=base.Clock.VIRTUAL)],
)
def test_an_embedded_kernel_has_none_of_them(choice: KernelChoice) -> None:
    with pytest.raises(errors.UsageError, match="has none of this machine's network cards"):
        on_this_machine(choice)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("node9=eth1", "uplinks.node9: there is no such host"),
        ("node1=eth1:wifi", "host.node1.as: 'wifi' (use nic, macvlan, vf)"),
        ("none.yaml", "--uplinks none.yaml: No such file"),
    ],
)
def test_compare_refuses_mistakes_before_anything_is_built(
    words: str, said: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(compare, ["--uplinks", words, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, errors.KproxyError)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("allowed", [True, False])
def test_who_reproduces_says_anew_whether_the_default_route_may_go(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = comparison.Parameters(modes=("iptables",), uplinks={"node1": Uplink(nic="eth1")})
    load = Workload(manifests=(), notes=())
    monkeypatch.setattr(resultset, "read", lambda path: None)
    monkeypatch.setattr(reproducing, "again", lambda *words: (before, load, words[2], "none"))
    auto = KernelChoice(name="auto", clock=None)
    with click.Context(compare):
        job, _ = _job(auto, (), Path("result.json"), None, None, False, {"take_it": allowed})
    assert job.parameters.take_default_route is allowed
    assert job.parameters.uplinks == before.uplinks


def test_the_chain_s_cluster_has_the_cards() -> None:
    cards = {
        "node1": Uplink(nic="eth1"),
        "outside1": Uplink(nic="eth2", kind=Attachment.MACVLAN, mode="private"),
    }
    parameters = Parameters(uplinks=cards)
    parameters.check()
    assert parameters.file().cards("x") == cards
