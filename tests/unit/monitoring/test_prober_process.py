"""The prober as a process beside an API server: what it finds out, and how it ends."""

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitored_api import PATIENCE_S, Api, Program, checked_by_promtool, running, serving, started

from kproxy.api import kinds
from kproxy.controlplane.access import kubeconfigs

QUICK = ["--period=50ms", "--timeout=50ms", "--node=n1"]
ADDRESS = "127.96.0.7"
PORTS = [
    {"name": "web", "port": 0, "protocol": "TCP"},
    {"name": "echo", "port": 0, "protocol": "UDP"},
]
LABELS = {"namespace": "default", "service": "web", "node": "n1"}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path) as made:
        yield made


class Backend:
    """Who answers at a Service's address, which is one of this machine's own."""

    def __init__(self) -> None:
        self.tcp = socket.create_server((ADDRESS, 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((ADDRESS, 0))
        self.sources: set[int] = set()
        threading.Thread(target=self._echo, daemon=True).start()

    def _echo(self) -> None:
        while True:
            payload, place = self.udp.recvfrom(2048)
            if not payload:
                return
            self.sources.add(place[1])
            self.udp.sendto(payload, place)

    def ports(self) -> list[dict[str, object]]:
        socks = (self.tcp, self.udp)
        return [
            {**one, "port": sock.getsockname()[1]} for one, sock in zip(PORTS, socks, strict=True)
        ]

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.udp.getsockname())
        self.tcp.close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.close()
    made.udp.close()


def make(api: Api, ports: list[dict[str, object]], annotation: str = "udp-echo") -> None:
    spec = {"clusterIP": ADDRESS, "ports": ports}
    api.create(kinds.SERVICE, "web", annotations={"kproxy/probe": annotation}, spec=spec)


def test_answers_are_counted_with_those_that_were_lost(api: Api, backend: Backend) -> None:
    with running("prober", f"--kubeconfig={api.kubeconfig}", *QUICK, "--flows=2") as prober:
        make(api, backend.ports())
        answered = "kproxy_probe_duration_seconds_count"
        for probe in ("tcp-connect", "udp-flow", "udp-fresh"):
            prober.until(lambda p=probe: (prober.value(answered, **LABELS, probe=p) or 0) >= 10)
        assert prober.value("kproxy_prober_targets") == 4
        # Each target has one under way at most, but for what happens between two figures.
        prober.until(lambda: 0 <= under_way(prober) <= 4)
        ports = len(backend.sources)
        fresh = prober.value("kproxy_probe_sent_total", **LABELS, probe="udp-fresh")
        assert fresh is not None
        assert ports <= fresh + 2, "two flows keep their ports"
        assert prober.text("/readyz") == "ok"
        code, said = prober.end()
    assert code == 0
    assert '"stopped"' in said
    assert "Traceback" not in said


def test_a_service_that_does_not_answer_loses_all_and_one_that_is_gone_its_series(
    api: Api, backend: Backend
) -> None:
    ports = backend.ports()
    backend.tcp.close()
    with running("prober", f"--kubeconfig={api.kubeconfig}", *QUICK) as prober:
        make(api, ports)
        prober.until(lambda: (prober.value("kproxy_probe_lost_total", **LABELS) or 0) >= 5)
        tcp = {**LABELS, "probe": "tcp-connect", "protocol": "TCP", "port": str(ports[0]["port"])}
        assert prober.value("kproxy_probe_duration_seconds_count", **tcp) == 0
        api.client.delete(kinds.SERVICE, "default", "web")
        prober.until(lambda: prober.value("kproxy_probe_lost_total", **LABELS) is None)
        # The Service kubernetes is left.
        prober.until(lambda: prober.value("kproxy_prober_targets") in (0, None, 1))


def under_way(prober: Program) -> float:
    """Return how many probes were sent, and neither lost nor answered."""
    families = prober.families()
    answered = families["kproxy_probe_duration_seconds"].samples
    return (
        sum(families["kproxy_probe_sent_total"].samples.values())
        - sum(families["kproxy_probe_lost_total"].samples.values())
        - sum(value for (name, _), value in answered.items() if name.endswith("_count"))
    )


@pytest.mark.needs_tool("promtool")
def test_promtool_has_nothing_against_it(api: Api, backend: Backend) -> None:
    with running("prober", f"--kubeconfig={api.kubeconfig}", *QUICK) as prober:
        make(api, backend.ports())
        prober.until(lambda: (prober.value("kproxy_probe_sent_total", **LABELS) or 0) >= 3)
        assert checked_by_promtool(prober.text()) == ""


def test_a_bad_annotation_is_told_of_and_stops_nobody_else(api: Api, backend: Backend) -> None:
    with running("prober", f"--kubeconfig={api.kubeconfig}", *QUICK) as prober:
        spec = {"clusterIP": "127.96.0.8", "ports": [{"port": 1}]}
        api.create(kinds.SERVICE, "odd", annotations={"kproxy/probe": "icmp"}, spec=spec)
        make(api, backend.ports())
        prober.until(lambda: prober.value("kproxy_probe_sent_total", **LABELS))
        assert prober.value("kproxy_probe_sent_total", service="odd") is None
        _, said = prober.end()
    assert "Service default/odd: metadata.annotations[kproxy/probe]: 'icmp'" in said


def test_hundreds_of_services_hold_a_bounded_number_of_sockets(api: Api) -> None:
    with running("prober", f"--kubeconfig={api.kubeconfig}", "--max-targets=50", *QUICK) as prober:
        for number in range(120):
            address = f"127.96.1.{number}"
            spec = {"clusterIP": address, "ports": [{"port": 9, "protocol": "UDP"}]}
            annotations = {"kproxy/probe": "udp-echo"}
            api.create(kinds.SERVICE, f"s{number:03}", annotations=annotations, spec=spec)
        prober.until(lambda: prober.value("kproxy_prober_targets_left_out") == 190)
        prober.until(lambda: (prober.value("kproxy_probe_lost_total") or 0) >= 200)
        open_files = prober.value("process_open_fds")
        assert open_files is not None
        assert open_files < 50 + 64
        assert prober.value("kproxy_prober_targets") == 50


def test_what_may_be_open_bounds_the_targets(api: Api) -> None:
    with running("prober", f"--kubeconfig={api.kubeconfig}", *QUICK, files=130) as prober:
        for number in range(80):
            spec = {"clusterIP": f"127.96.1.{number}", "ports": [{"port": 9}]}
            api.create(kinds.SERVICE, f"s{number:02}", spec=spec)
        prober.until(lambda: prober.value("kproxy_prober_targets_left_out") == 14)
        assert prober.value("kproxy_prober_targets") == 66


@pytest.mark.parametrize(
    ("files", "options", "least"),
    [(40, [], 128), (64, [], 128), (127, [], 128), (73, ["--max-targets=10"], 74)],
)
def test_where_too_little_may_be_open_it_does_not_start(
    tmp_path: Path, files: int, options: list[str], least: int
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfigs.document({"server": "http://127.0.0.1:1"}, "u", {}))
    given = [f"--kubeconfig={path}", "--metrics-bind-address="]
    with started("prober", *given, *options, files=files) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    (line,) = said.splitlines()
    assert f"only {files} open files are allowed (RLIMIT_NOFILE)" in line
    assert f"allow at least {least}" in line


def test_few_targets_need_few_files(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        path = api.kubeconfig
    with running("prober", f"--kubeconfig={path}", "--max-targets=10", files=74) as prober:
        assert prober.end()[0] == 0


def test_it_lives_without_an_api_and_ends_when_told(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        path = api.kubeconfig
    with running("prober", f"--kubeconfig={path}", *QUICK) as prober:
        assert prober.text("/healthz") == "ok"
        heard = prober.value("kproxy_watch_last_event_timestamp_seconds", resource="services")
        assert heard == 0
        prober.process.send_signal(signal.SIGINT)
        assert prober.process.wait(PATIENCE_S) == 0


def test_it_ends_also_where_who_started_it_holds_signals_back(tmp_path: Path) -> None:
    with serving(tmp_path) as api:
        path = api.kubeconfig
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        with running("prober", f"--kubeconfig={path}", *QUICK) as prober:
            assert prober.text("/healthz") == "ok"
            assert prober.end()[0] == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--timeout=2s"], "--timeout 2s is longer than --period 1s"),
        (["--period=0s"], "is not longer than nothing"),
        (["--period=soon"], "is not a duration"),
        (["--flows=0"], "is no number from 1 on"),
        (["--kubeconfig=/nonexistent"], "cannot read kubeconfig"),
        (["--metrics-bind-address=nowhere:http"], "choose another HOST:PORT"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfigs.document({"server": "http://127.0.0.1:1"}, "u", {}))
    given = [f"--kubeconfig={path}", "--metrics-bind-address="]
    with started("prober", *given, *options) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert words in said.splitlines()[-1]
    assert "Traceback" not in said
