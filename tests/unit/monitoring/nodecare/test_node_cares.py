"""What cares do when things change while they look: nothing that is healthy is touched."""

from typing import Any

import pytest
from care_subjects import (
    NOWHERE,
    USR1,
    A,
    B,
    Kernel,
    Tables,
    a_process,
    asks,
    flow,
    no_pauses,
    wanted,
)

from kproxy.errors import KernelError
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.monitoring.nodecare import flows, process, resync, seen, weights
from kproxy.monitoring.nodecare.process import Process

__all__ = ["no_pauses"]


class TestCleanConntrack:
    """Flows."""

    def test_only_what_leads_nowhere_goes(self) -> None:
        table = FakeConntrack([flow(A, 1), flow(B, 2)])
        done = flows.clean(table, asks(wanted(A)))
        assert (len(done.found), len(done.done), done.good) == (1, 1, True)
        assert table.table == [flow(A, 1)]

    def test_a_dry_run_deletes_nothing(self) -> None:
        table = FakeConntrack([flow(B)])
        done = flows.clean(table, asks(wanted(A)), dry_run=True)
        assert (len(done.done), done.good) == (1, False)
        assert table.table == [flow(B)]

    def test_an_endpoint_that_comes_meanwhile_keeps_its_flows(self) -> None:
        table = FakeConntrack([flow(B)])
        done = flows.clean(table, asks(wanted(A), wanted(A, B)))
        assert (done.done, done.good) == ((), True)
        assert table.table == [flow(B)]

    def test_a_flow_that_has_ended_by_itself_is_no_failure(self) -> None:
        table = FakeConntrack([flow(B)])
        table.fail_delete = {0: 2}
        done = flows.clean(table, asks(wanted(A)), pause=table.table.clear)
        assert done.good

    def test_what_the_kernel_refuses_is_left_and_told(self) -> None:
        table = FakeConntrack([flow(B)])
        table.fail_delete = {0: 1}
        done = flows.clean(table, asks(wanted(A)))
        assert not done.good
        assert "forget the flow" in done.left[0]

    def test_flows_that_come_back_are_the_rules_fault(self) -> None:
        table = FakeConntrack([flow(B)])
        done = flows.clean(table, asks(wanted(A)), pause=lambda: table.table.append(flow(B)))
        assert not done.good
        assert "restart-proxy" in done.refused

    @pytest.mark.parametrize(
        ("mode", "clean_last", "count"),
        [("ipvs", False, 1), ("iptables", False, 0), ("iptables", True, 1)],
    )
    def test_without_any_endpoint_a_proxy_decides_by_its_mode(
        self, mode: str, clean_last: bool, count: int
    ) -> None:
        table = FakeConntrack([flow(B)])
        nobody = wanted(mode=mode, clean_last=clean_last)
        assert len(flows.stale(table, nobody)) == count


class TestHealWeights:
    """Real servers."""

    def test_stuck_ones_are_healed_and_the_others_drain_on(self) -> None:
        tables = Tables(A, B)
        done = weights.heal(asks(wanted(A)), opened=tables)
        assert (tables.healed, done.good) == ([A], True)
        assert tables.zero == [B]

    def test_a_dry_run_heals_nothing(self) -> None:
        tables = Tables(A)
        assert weights.heal(asks(wanted(A)), opened=tables, dry_run=True).done
        assert tables.healed == []

    def test_one_that_leaves_meanwhile_drains_on(self) -> None:
        tables = Tables(A)
        done = weights.heal(asks(wanted(A), wanted(B)), opened=tables)
        assert (tables.healed, done.good) == ([], True)

    def test_one_that_comes_to_rest_meanwhile_is_for_the_next_time(self) -> None:
        tables = Tables(A, B)
        done = weights.heal(asks(wanted(A), wanted(A, B)), opened=tables)
        assert tables.healed == [A]
        assert not done.good
        assert B in done.left[0]

    def test_what_the_kernel_refuses_is_left_and_told(self) -> None:
        tables = Tables(A)
        tables.refuse = KernelError("set", 1, "refused")
        done = weights.heal(asks(wanted(A)), opened=tables)
        assert not done.good
        assert "refused" in done.left[0]

    def test_other_modes_have_no_weights(self) -> None:
        done = weights.heal(asks(wanted(A, mode="nftables")), opened=Tables(A))
        assert "no weights" in done.refused


class TestResync:
    """A full sync."""

    def run(self, kernel: Kernel, one: Process | None = None, **more: Any) -> seen.Care:
        self.sent: list[int] = []

        def send(_: Process, number: int) -> bool:
            self.sent.append(number)
            return True

        return resync.resync(
            NOWHERE,
            asks(wanted(A)),
            kernel,
            number=USR1,
            within_s=0.0,
            find=lambda lock: one,
            send=send,
            lives=lambda _: True,
            **more,
        )

    def test_what_passes_is_no_reason_to_ask(self) -> None:
        done = self.run(Kernel(["a"], []), a_process())
        assert (done.found, done.good, self.sent) == ((), True, [])

    def test_what_lasts_is_repaired(self) -> None:
        done = self.run(Kernel(["a", "b"], ["b"], []), a_process())
        assert (done.found, self.sent) == (("missing rule b",), [USR1])
        assert (done.left, done.refused) == ((), "")

    def test_a_dry_run_sends_nothing(self) -> None:
        done = self.run(Kernel(["a"]), a_process(), dry_run=True)
        assert (done.done, done.good, self.sent) == (("SIGUSR1 to process 20",), False, [])

    @pytest.mark.parametrize(
        ("one", "reason"),
        [
            (None, "no proxy runs"),
            (a_process(kind="kube-proxy"), "kube-proxy (process 20) cannot be asked"),
            (a_process(state=process.State.STOPPED), "is stopped"),
            (a_process(state=process.State.ZOMBIE), "is zombie"),
            (a_process(catches=frozenset()), "does not listen to the request yet"),
        ],
    )
    def test_who_cannot_be_asked_is_not(self, one: Process | None, reason: str) -> None:
        done = self.run(Kernel(["a"]), one)
        assert reason in done.refused
        assert "restart-proxy" in done.refused
        assert (self.sent, done.good) == ([], False)

    def test_many_differences_are_counted(self) -> None:
        done = self.run(Kernel([f"{number:03}" for number in range(100)]), None)
        assert done.found[-1] == "… and 80 more"
