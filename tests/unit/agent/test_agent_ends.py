"""How the daemon ends: a process of its own, with an informer that dies and signals that come."""

import json
import subprocess
import sys

PROGRAM = """
import os, signal, threading
from kproxy.agent import daemon
from kproxy.agent.nodelock import NodeLock
from kproxy.agent.settings import from_config
from kproxy.api.config import KubeProxyConfiguration, with_defaults
from kproxy.client.informer import Informer
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest
from kproxy.logs import Log

settings = from_config(with_defaults(KubeProxyConfiguration(hostname_override="n")))
agent = daemon.Agent(settings, Rest(Access(server="http://127.0.0.1:1")), Log("proxy"))
agent._proxier.reread = lambda: None
agent._start_health_server = lambda _: None
agent._lock = NodeLock(Log("proxy"), name="kproxy/test-" + str(os.getpid()))
{}
raise SystemExit(agent.run())
"""


def ended(*lines: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format("\n".join(lines))
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def events(done: subprocess.CompletedProcess[str], msg: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line["msg"] == msg]


def test_an_informer_that_dies_ends_the_process() -> None:
    done = ended("def die(informer): raise RuntimeError('a bug')", "Informer._list = die")
    assert done.returncode == 1
    assert events(done, "thread died")[0]["error"] == "RuntimeError: a bug"
    assert "Traceback" in done.stderr, "for those who mend it"


def test_an_informer_whose_words_nobody_takes_ends_the_process() -> None:
    done = ended(
        "reading = threading.Event()",
        "agent._proxier.reread = reading.set",
        "def tell(informer):",
        "    reading.wait()",
        "    nobody, stderr = os.pipe()",
        "    os.close(nobody)",
        "    os.dup2(stderr, 2)",
        "    Log('proxy').warning('problem')",
        "Informer._list = tell",
    )
    assert done.returncode == 1


def test_another_thread_that_dies_does_not() -> None:
    done = ended(
        "def die(): raise RuntimeError('a bug')",
        "def read():",
        "    thread = threading.Thread(target=die)",
        "    thread.start(); thread.join()",
        "    os.kill(os.getpid(), signal.SIGTERM)",
        "agent._proxier.reread = read",
    )
    assert done.returncode == 0
    assert events(done, "stopped")
    assert events(done, "thread died") == []


def test_who_asks_twice_to_stop_is_heard_once() -> None:
    done = ended(
        "def info(msg, **fields):",
        "    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):",
        "        os.kill(os.getpid(), number)",
        "    Log.info(agent._log, msg, **fields)",
        "def read():",
        "    both = {signal.SIGTERM, signal.SIGINT}",
        "    signal.pthread_sigmask(signal.SIG_BLOCK, both)",
        "    for number in both: os.kill(os.getpid(), number)",
        "    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)",
        "agent._proxier.reread = read",
        "agent._log.info = info",
    )
    assert done.returncode == 0, done.stderr
    assert events(done, "stopped")
    assert "Traceback" not in done.stderr


def test_who_asks_for_a_full_sync_too_early_does_not_end_it() -> None:
    done = ended(
        "def read():",
        "    os.kill(os.getpid(), signal.SIGUSR1)",
        "    os.kill(os.getpid(), signal.SIGTERM)",
        "agent._proxier.reread = read",
    )
    assert done.returncode == 0
    assert events(done, "stopped")
