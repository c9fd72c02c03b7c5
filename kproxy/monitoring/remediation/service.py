"""Puts the receiver together from a configuration, runs it, and ends it."""

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from kproxy.client.kubeconfig import Access, access_of_pod, load_kubeconfig
from kproxy.client.rest import Rest
from kproxy.errors import InvalidObject, UsageError
from kproxy.exposition import Registry
from kproxy.logs import Log

from . import journal as journals
from . import webhook
from .actions import catalog
from .book import Policy
from .clock import APART_MOST_S
from .engine import Engine
from .health import NodeHealth
from .journal import Journal
from .ledger import Ledger
from .metrics import Metrics
from .pages import Receiver
from .records import Ended, Notified
from .reporter import Reporter
from .scripts import scriptaction
from .seams import Action, Limits, Tools
from .server import Server
from .settings import Settings
from .state import State
from .telling import Events
from .tokens import Token

API_TIMEOUT_S = 5.0
NOWHERE = "http://nowhere.invalid"
"""No API server: such a name never exists (RFC 2606)."""
END_S = 3.0
"""So long the worker may take to end; what it runs is looked at by the next start. Also the events
that are still to be sent."""


class Service:
    """The parts of a receiver that all ways to run it share.

    Raises UsageError, InvalidObject for what is wrong with the configuration.
    """

    def __init__(self, settings: Settings, journal: Journal, log: Log) -> None:
        self.settings = settings
        self.log = log
        rest = api_client(settings)
        actions = configured_actions(settings, rest, log)
        limits = {name: settings.limits(name, one.limits) for name, one in actions.items()}
        # The journal may tell of actions that are not configured any more.
        state = State(settings.guards, lambda name: limits.get(name) or Limits(), actions)
        self.ledger = Ledger(state, journal)
        if journal.skipped:
            log.warning("lines of the journal could not be read", count=journal.skipped)
        if (ahead := self.ledger.clock.ahead()) > APART_MOST_S:
            # It is followed until the time of day has come there; until then alerts are too old.
            log.error("the journal is of a time to come: was a clock wrong?", seconds=ahead)
        needs = {name: action.needs for name, action in actions.items()}
        guards = settings.guards
        self.policy = Policy(needs, guards.max_age, guards.queue, guards.patience)
        self.metrics = Metrics(Registry(), actions)
        self.metrics.watch(self.ledger, dry_run=settings.dry_run)
        self.events = Events(rest, log)
        self.reporter = Reporter(self.ledger, self.metrics, self.events, log)
        self.engine = Engine(
            settings,
            self.ledger,
            actions,
            health=NodeHealth(rest),
            reporter=self.reporter,
            log=log,
        )


@contextlib.contextmanager
def opened(settings: Settings, log: Log) -> Iterator[Service]:
    """Make a receiver that has its journal. Raises UsageError, InvalidObject, JournalFailed."""
    place = settings.journal
    with Journal(Path(place.directory), file_bytes=place.file_bytes, files=place.files) as journal:
        service = Service(settings, journal, log)
        service.ledger.start(os.getpid(), dry_run=settings.dry_run)
        yield service


@contextlib.contextmanager
def running(
    settings: Settings, log: Log, failed: Callable[[], None] = lambda: None
) -> Iterator[int]:
    """Serve and work within; the value is the port. Raises UsageError, InvalidObject.

    ``failed`` is called if the worker fails, which is a bug: nothing is repaired any more.
    """
    if not settings.token_file:
        remedy = "name a file with a token that Alertmanager knows, too"
        raise UsageError("tokenFile is not set: anybody could have repairs made", remedy=remedy)
    token = Token(Path(settings.token_file), log)
    with opened(settings, log) as service:

        def work() -> None:
            try:
                service.engine.run()
            except BaseException:
                failed()
                raise

        worker = threading.Thread(target=work, name="repairs", daemon=True)
        receiver = Receiver(
            service.ledger,
            service.policy,
            token,
            directory=Path(settings.journal.directory),
            metrics=service.metrics,
            reporter=service.reporter,
            alive=worker.is_alive,
            log=log,
        )
        try:
            with Server(settings, receiver) as server:
                # Not before: where the port is taken, nothing may begin that would be interrupted.
                worker.start()
                log.info("listening", port=server.port, actions=sorted(service.policy.needs))
                yield server.port
        finally:
            service.engine.end()
            if worker.ident is not None:
                worker.join(END_S)


def once(settings: Settings, body: bytes, log: Log) -> tuple[Notified, list[Ended]]:
    """Take one notification as if it were sent, and do what is due now.

    Returns what became of its alerts, and how those ended that did. Raises InvalidObject for a
    notification that cannot be read, UsageError, JournalFailed.
    """
    notification = webhook.decode(body)
    with opened(settings, log) as service:
        record = service.ledger.accept(notification, "file", service.policy)
        service.reporter.accepted(record)
        service.engine.run_until_idle()
        service.events.flush(END_S)
    records = journals.read(Path(settings.journal.directory))
    ended = [one for one in records if isinstance(one, Ended) and one.at >= record.at]
    return record, ended


def api_client(settings: Settings) -> Rest | None:
    """Return a client of the API server; None: none is configured.

    Raises UsageError, InvalidObject for what says how to reach it.
    """
    if settings.kubeconfig:
        access = load_kubeconfig(Path(settings.kubeconfig))
    elif os.environ.get("KUBERNETES_SERVICE_HOST"):
        access = access_of_pod(os.environ, remedy="name a kubeconfig in the configuration")
    else:
        return None
    return Rest(access, agent="kproxy-remediation", timeout=API_TIMEOUT_S)


def listed_actions(settings: Settings, log: Log) -> dict[str, Action]:
    """Return the actions that the configuration names, to be told of: they reach no API server.

    None has to be there, nor a kubeconfig. Raises InvalidObject, UsageError.
    """
    return configured_actions(settings, Rest(Access(server=NOWHERE)), log)


def configured_actions(settings: Settings, rest: Rest | None, log: Log) -> dict[str, Action]:
    """Return the actions that the configuration names. Raises InvalidObject."""
    access = settings.node_access
    if access.kind not in catalog.NODE_ACCESS:
        known = ", ".join(sorted(catalog.NODE_ACCESS)) or "none"
        problem = f"there is no {access.kind!r}"
        raise InvalidObject("configuration", "nodeAccess.kind", problem, remedy=f"known: {known}")
    _check_options("nodeAccess.options", access.options, catalog.ACCESS_OPTIONS)
    _check_options("options", settings.options, catalog.OPTIONS)
    nodes = catalog.NODE_ACCESS[access.kind](rest, log, access.options)
    tools = Tools(nodes=nodes, rest=rest, log=log, options=settings.options)
    scripts = scriptaction.load(
        settings.user_scripts.directory, settings.user_scripts.user, settings.limits
    )
    found: dict[str, Action] = {}
    for name in settings.actions:
        if name in catalog.ACTIONS:
            found[name] = _made(name, tools)
        elif name in scripts:
            found[name] = scripts[name]
        else:
            known = ", ".join(sorted({*catalog.ACTIONS, *scripts})) or "none"
            field, problem = f"actions.{name}", "there is no such action"
            raise InvalidObject("configuration", field, problem, remedy=f"known: {known}")
    return found


def _check_options(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise InvalidObject for an option that nobody reads."""
    for name in sorted(set(given) - set(known)):
        remedy = f"known: {', '.join(sorted(known))}"
        raise InvalidObject(
            "configuration", f"{where}.{name}", "there is no such option", remedy=remedy
        )


def _made(name: str, tools: Tools) -> Action:
    try:
        return catalog.ACTIONS[name](tools)
    except ValueError as error:  # An option that is no number, or whose quotes do not match.
        words = f"{name} cannot use them: {error}"
        raise InvalidObject("configuration", "options", words, remedy="correct them") from None
