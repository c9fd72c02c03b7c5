"""``kproxy remediate``: the receiver of alerts that repairs, and what it did."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kproxy import rfc3339
from kproxy.api.durations import Duration
from kproxy.errors import UsageError
from kproxy.logs import Log
from kproxy.monitoring.remediation import __main__ as program
from kproxy.monitoring.remediation import journal, service
from kproxy.monitoring.remediation import settings as configuration
from kproxy.monitoring.remediation.records import (
    AnyRecord,
    Began,
    Ended,
    Held,
    Notified,
    Ran,
    Seen,
    Snapshot,
    Started,
    fingerprint_of,
)
from kproxy.monitoring.remediation.settings import Settings

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_config = click.option(
    "--config", type=_FILE, metavar="FILE", help="The configuration (YAML); see remediation.yaml."
)
NO_CONFIG = "name the configuration: --config FILE"
WIDTH_UNKNOWN = 160
"""Columns of a table where the output is no terminal."""


@click.group(invoke_without_command=True)
@_config
@click.option("--dry-run", is_flag=True, help="Check what would be done; run no action.")
@click.option(
    "--once",
    type=_FILE,
    metavar="NOTIFICATION",
    help="Take one notification from a file, do what is due now, and end.",
)
@click.pass_context
def remediate(ctx: click.Context, config: Path | None, dry_run: bool, once: Path | None) -> int:
    """Receive Alertmanager's alerts and run the prepared actions that they name.

    Every action is checked first, limited, written down before it begins, and verified; what it
    could not cure is left to a human. Ends at SIGTERM. With --once, the exit code is 1 if
    something was left to a human.
    """
    ctx.ensure_object(dict)["config"] = config
    if ctx.invoked_subcommand is not None:
        return 0
    if config is None:
        raise UsageError(NO_CONFIG)
    if once is None:
        program.serve(config, dry_run=dry_run)
        return 0
    settings = configuration.load(config)
    if dry_run:
        settings = msgspec.structs.replace(settings, dry_run=True)
    return _once(settings, once)


@remediate.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each action.")
@click.pass_context
def actions(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """List the configured actions: what they do, what they need, how they are limited.

    Asks nobody: needs no API server.
    """
    settings = configuration.load(_config_of(ctx, config))
    found = service.listed_actions(settings, Log("remediation"))
    rows = []
    for name, action in sorted(found.items()):
        limits = settings.limits(name, action.limits)
        rows.append(
            {
                "name": name,
                "does": action.summary,
                "needs": sorted(action.needs),
                "runs": f"{limits.runs} in {Duration(limits.period).text}",
                "coolDown": Duration(limits.cool_down).text,
                "runWithin": Duration(limits.run_within).text,
                "verifyWithin": Duration(limits.verify_within).text,
                "dryRun": settings.dry_run or settings.actions[name].dry_run,
            }
        )
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    _print(("action", "does", "needs", "runs", "cool-down", "run within", "verify within"), rows)


@remediate.command()
@_config
@click.option(
    "--journal",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="The journal; default: that of the configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a record.")
@click.pass_context
def audit(ctx: click.Context, config: Path | None, directory: Path | None, as_json: bool) -> None:
    """Show the journal: every notification, and all that was done about it, the oldest first."""
    if directory is None:
        directory = Path(configuration.load(_config_of(ctx, config)).journal.directory)
    records = journal.read(directory)
    if as_json:
        for record in records:
            if not isinstance(record, Snapshot):
                click.echo(msgspec.json.encode(record))
        return
    table = Table(box=box.SIMPLE, show_edge=False)
    for column in ("time", "what", "about", "action", "target", "why"):
        table.add_column(column, overflow="fold")
    for record in records:
        for row in rows_of(record):
            table.add_row(*map(_cell, row))
    _console().print(table)


Row = tuple[str, str, str, str, str, str]


def rows_of(record: AnyRecord) -> Iterable[Row]:
    """Return the lines of a record in the table: time, what, alert, action, target, why."""
    at = rfc3339.microtime(record.at)[:-4] + "Z"
    match record:
        case Started():
            yield at, "started", "", "", "", "dry run" if record.dry_run else f"pid {record.pid}"
        case Notified():
            for seen in record.alerts:
                yield at, seen.said, _alert(seen), seen.labels.get("remediation", ""), "", seen.why
            if record.truncated:
                yield at, "truncated", "", "", "", f"{record.truncated} alerts were left out"
        case Held() | Began() | Ran() | Ended():
            what, why = _what(record)
            about = fingerprint_of(record.instance)
            yield at, what, about, record.action, record.target, why


def _what(record: Held | Began | Ran | Ended) -> tuple[str, str]:
    """Return what happened to an instance, and why."""
    match record:
        case Held():
            return "held", record.why
        case Began():
            return "began", record.why
        case Ran():
            return "ran", f"{record.detail} ({record.seconds:.2f} s)"
    left = ", left to a human" if record.escalated else ""
    return f"{record.result}{left}", record.why


def _alert(seen: Seen) -> str:
    labels = [seen.labels.get(name, "") for name in ("alertname", "node", "namespace", "service")]
    state = "firing" if seen.firing else "resolved"
    return " ".join([seen.fingerprint, state, *filter(None, labels)])


def _once(settings: Settings, file: Path) -> int:
    try:
        body = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    record, ended = service.once(settings, body, Log("remediation"))
    told: list[AnyRecord] = [record, *ended]
    for one in told:
        for row in rows_of(one):
            click.echo("  ".join(_printable(word) for word in row if word))
    left = any(seen.said.needs_human for seen in record.alerts)
    return 1 if left or any(one.escalated for one in ended) else 0


def _config_of(ctx: click.Context, config: Path | None) -> Path:
    found = config or (ctx.obj or {}).get("config")
    if found is None:
        raise UsageError(NO_CONFIG)
    return Path(found)


def _print(columns: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    table = Table(*columns, box=box.SIMPLE, show_edge=False)
    for row in rows:
        cells = [" ".join(cell) if isinstance(cell, list) else cell for cell in row.values()]
        if cells.pop():
            cells[0] = f"{cells[0]} (dry run)"
        table.add_row(*(_cell(str(one)) for one in cells))
    _console().print(table)


def _cell(words: str) -> Text:
    """Return words as they are: brackets, too, which the table would take for markup."""
    return Text(_printable(words))


def _printable(words: str) -> str:
    """Return words without what commands a terminal: whoever makes metrics writes labels."""
    return "".join(one if one.isprintable() else "?" for one in words)


def _console() -> Console:
    console = Console(soft_wrap=False)
    return console if console.is_terminal else Console(width=WIDTH_UNKNOWN)
