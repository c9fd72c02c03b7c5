"""``kproxy proxy`` without the command line library: what a restart of the proxy goes through.

Everything imported here, and by what is imported here, lengthens every restart. A test lists it.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kproxy import costs
from kproxy.api import configfile
from kproxy.api.configfile import LoadedConfig
from kproxy.api.flags import Options, parse_flags, resolve
from kproxy.client.kubeconfig import Access, access_of_pod, load_kubeconfig
from kproxy.errors import InvalidObject, KproxyError, UsageError
from kproxy.logs import Log

if TYPE_CHECKING:
    from kproxy.agent.settings import Settings

DEBUG_VERBOSITY = 2

EXIT_CHANGED = 3
"""Exit code when the configuration file has changed."""

UNWATCHED_S = 3.0
"""So long after its start the proxy does not look whether the configuration file has changed."""


def main(arguments: Sequence[str]) -> int:
    """Run the node proxy with kube-proxy's flags; return the exit code.

    0: ended by a signal, or cleaned up. 1: it could not go on. 2: bad flags or configuration.
    3: the configuration file has changed.
    """
    # Nearly everything made before the first sync is kept: looking for garbage in it is in vain.
    # The daemon switches the collector on again.
    gc.disable()
    try:
        return _run(parse_flags(arguments))
    except (UsageError, InvalidObject) as error:
        print(f"kproxy proxy: {error}", file=sys.stderr)
        return 2
    except KproxyError as error:
        print(f"kproxy proxy: {error}", file=sys.stderr)
        return 1
    finally:
        gc.enable()


def _run(options: Options) -> int:
    if options.help or options.version:
        _print_about(options)
        return 0
    if options.cleanup or options.cleanup_except:
        return _clean_up(_log(options.verbosity), options.cleanup_except)
    content = _read(options.config_file)
    loaded = resolve(options, _parse(options.config_file, content))
    if options.write_config_to:
        _write_config(options, loaded)
        return 0
    log = _log(options.verbosity or loaded.config.verbosity)
    from kproxy.agent import daemon, settings
    from kproxy.client.rest import Rest

    wanted = settings.from_config(loaded.config)
    if options.init_only:
        _initialise(wanted, loaded, log)
        return 0
    # All mistakes are told before anything else, as one line.
    access = api_access(loaded.config.client_connection.kubeconfig, options.master)
    rest = Rest(access, agent="kproxy-proxy")
    _require_root()
    # What came before is paid before anybody is asked or told.
    cost = costs.of(costs.PROXY, log, node=wanted.node)
    cost.pay(costs.START, mode=wanted.mode)
    log.info(
        "started",
        backend=wanted.mode,
        node=wanted.node,
        pid=os.getpid(),
        since_exec_ms=daemon.since_exec_ms(),
    )
    _tell_notes(loaded, log)
    changed = _end_on_change(options.config_file, content, log)
    code = daemon.Agent(wanted, rest, log, cost).run()
    return EXIT_CHANGED if changed.is_set() else code


def _end_on_change(path: str, content: bytes, log: Log) -> threading.Event:
    """Let the process end, as after SIGTERM, when the configuration file changes; tell if it did.

    A change is looked for only after a while, because that would lengthen the start; none is
    missed, because what counts is the content that was read at first.
    """
    changed = threading.Event()

    def watch() -> None:
        time.sleep(UNWATCHED_S)
        from kproxy.agent import configwatch

        configwatch.wait_for_change(Path(path), content)
        changed.set()
        log.info("configuration changed", file=path)
        os.kill(os.getpid(), signal.SIGTERM)

    if path:
        threading.Thread(target=watch, name="configuration", daemon=True).start()
    return changed


def _log(verbosity: int) -> Log:
    return Log("proxy", "debug" if verbosity >= DEBUG_VERBOSITY else "info")


def _tell_notes(loaded: LoadedConfig, log: Log) -> None:
    for note in (*map(str, loaded.warnings), *loaded.notes):
        log.warning("configuration", note=note)


def _initialise(wanted: "Settings", loaded: LoadedConfig, log: Log) -> None:
    _require_root()
    from kproxy.agent.initialise import initialise

    _tell_notes(loaded, log)
    initialise(wanted, log)
    log.info("initialised", backend=wanted.mode)


def _print_about(options: Options) -> None:
    if options.help:
        from kproxy.api.flaghelp import help_text

        print(help_text(), end="")
        return
    from importlib import metadata

    print(f"kproxy {metadata.version('kproxy')}")


def _clean_up(log: Log, spared: str) -> int:
    """Remove everything of ours, and print a line for each mode; 1 if something could not be."""
    from kproxy.agent.cleanup import clean_up
    from kproxy.backends.base import BACKENDS

    if spared and spared not in BACKENDS:
        raise UsageError(
            f"--cleanup-except: there is no mode {spared!r}", remedy=f"use: {', '.join(BACKENDS)}"
        )
    _require_root()
    costs.of(costs.PROXY, log).pay(costs.START)
    done = clean_up(log, spared=spared)
    for one in done:
        print(f"kproxy proxy: {one}", file=sys.stderr if one.failures else sys.stdout)
    return 1 if any(one.failures for one in done) else 0


def _write_config(options: Options, loaded: LoadedConfig) -> None:
    """Write the configuration that flags and file make together, as YAML."""
    import yaml

    for note in (*map(str, loaded.warnings), *loaded.notes):
        print(f"kproxy proxy: {note}", file=sys.stderr)
    content = configfile.encode_config(loaded.config, options.write_config_version)
    try:
        Path(options.write_config_to).write_text(yaml.safe_dump(content, sort_keys=False))
    except OSError as error:
        raise UsageError(
            f"--write-config-to: cannot write {options.write_config_to}: {error.strerror}"
        ) from None


def _require_root() -> None:
    """Raise UsageError for users to whom the kernel shows no rules at all instead of refusing."""
    if os.geteuid() != 0:
        raise UsageError(
            "the node proxy reads and writes the kernel's rules", remedy="run it as root"
        )


def read_config(path: str) -> dict[str, Any] | None:
    """Return the content of a configuration file; None without one. Raises UsageError."""
    return _parse(path, _read(path))


def _read(path: str) -> bytes:
    """Return what a file holds; nothing without one. Raises UsageError."""
    try:
        return Path(path).read_bytes() if path else b""
    except OSError as error:
        raise UsageError(f"--config: cannot read {path}: {error.strerror}") from None


def _parse(path: str, content: bytes) -> dict[str, Any] | None:
    if not path:
        return None
    from kproxy.api import yamltext

    try:
        return yamltext.parse_one(content.decode(), f"file {path}")
    except UnicodeDecodeError as error:
        raise UsageError(f"--config: cannot read {path}: {error}") from None


def api_access(kubeconfig: str, master: str) -> Access:
    """Return how to reach the API server: by kubeconfig, by --master, or as a pod does."""
    if kubeconfig:
        return load_kubeconfig(Path(kubeconfig), server=master)
    if master:
        return Access(server=master)
    try:
        return access_of_pod(os.environ)
    except UsageError as error:
        raise UsageError(
            "no API server: neither --kubeconfig nor --master is given, and this is no pod",
            remedy=error.remedy,
        ) from None
