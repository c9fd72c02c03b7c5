"""Kills at random for some minutes: every promise is kept, and one that is broken is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.api import catalog, kinds
from kproxy.lab import costmodel
from kproxy.lab.chain import settings, soak, writer
from kproxy.lab.clusterfile import Profile
from kproxy.traffic.soakset import SoakSet
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
# Two kills of one process wait in back-off, which is not shorter in any profile.
PLAN = soak.Plan(
    hours=3 / 60,
    mean_s=15.0,
    parameters=settings.Parameters(members=0, profile=Profile.LAB),
)


@pytest.fixture(autouse=True)
def costs() -> Iterator[None]:
    """Starting something takes its time, in which somebody else may be killed, too."""
    costmodel.apply(costmodel.resolve(None, costmodel.VIRTUAL))
    yield
    costmodel.apply(None)


def test_promises_are_kept_and_what_is_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[str] = []
    judged: list[SoakSet] = []
    judge = soak.Soak.result

    def judge_twice(self: soak.Soak) -> SoakSet:
        """Judge; then take away what the writer was promised, and judge again."""
        judged.append(judge(self))
        api = self._cluster.api
        for kind in (kinds.SERVICE, catalog.DEPLOYMENT):
            for one in api.objects(kind, writer.NAMESPACE):
                if writer.value_of(one) and not lost:
                    name = one["metadata"]["name"]
                    api.delete(kind, writer.NAMESPACE, name)
                    lost.append(writer.label(kind, name))
        return judge(self)

    monkeypatch.setattr(soak.Soak, "result", judge_twice)
    robbed = soak.run(PLAN, tmp_path / "lab", progress=lambda step: None)
    (good,) = judged
    assert good.violations == ()
    assert good.parameters["incomplete"] == []
    assert len({(one.host, one.role) for one in good.kills}) >= 4
    assert good.writes.acknowledged > 20
    assert good.changes > 20
    assert good.settled_ms is not None
    sent = {one.node: 0 for one in good.measurements}
    assert set(sent) == {"hit", "other", "outside"}
    for one in good.measurements:
        assert (one.tcp.failed if one.tcp else one.lost) == 0, one
        sent[one.node] += one.tcp.attempted if one.tcp else one.sent
    assert min(sent.values()) > 16 * 60
    assert len(lost) == 1
    assert [one for one in robbed.violations if one.startswith("lost write: ")] != []
    assert lost[0] in "\n".join(robbed.violations)
