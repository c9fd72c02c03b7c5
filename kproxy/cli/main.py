"""The command ``kproxy``: its groups, and how errors end it.

Commands are imported when they are used: scapy, pyroute2 and rich together take seconds to import
inside an embedded kernel, and ``kproxy doctor`` needs none of them.

Exit codes: 0 done; 1 it ran, and the result is bad (a measurement that is not valid, a check that
failed); 2 bad input; 125 the embedded kernel died; 130 interrupted.
"""

import importlib
import os
import sys
from typing import Any

import click

from kproxy import errors
from netns import errors as netns_errors

COMMANDS = {
    "bench": "kproxy.cli.bench:bench",
    "chain": "kproxy.cli.chain:chain",
    "compare": "kproxy.cli.compare:compare",
    "diff": "kproxy.cli.diff:diff",
    "doctor": "kproxy.cli.doctor:doctor",
    "explain": "kproxy.cli.explain:explain",
    "kernel": "kproxy.cli.kernel:kernel",
    "lab": "kproxy.cli.lab:lab",
    "measure": "kproxy.cli.measure:measure",
    "node": "kproxy.cli.node:node",
    "proxy": "kproxy.cli.proxy:proxy",
    "remediate": "kproxy.cli.remediate:remediate",
    "report": "kproxy.cli.report:report",
    "state": "kproxy.cli.state:state",
    "trace": "kproxy.cli.trace:trace",
}


class LazyGroup(click.Group):
    """A group whose commands are ``name -> "module:attribute"``, imported at their first use."""

    def __init__(self, *args: Any, lazy: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self._lazy, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now if need be."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="kproxy", prog_name="kproxy")
def cli() -> None:
    """A Kubernetes node proxy, and the laboratory that measures what its restarts cost.

    Start with `kproxy doctor` (what can this machine do?) and `kproxy compare` (what does a
    restart of the proxy cost in packets, IPVS against iptables?).
    """


def main() -> int:
    """Run the command line and return the exit code. No traceback for a user's mistake."""
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort:
        return 130
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        help_at = f" (see: {context.command_path} --help)" if context else ""
        click.echo(f"kproxy: {error.format_message().rstrip('.')}{help_at}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        click.echo("kproxy: interrupted", err=True)
        return 130
    except (errors.UsageError, errors.InvalidObject, netns_errors.TopologyError) as error:
        click.echo(f"kproxy: {error}", err=True)
        return 2
    except (errors.KproxyError, netns_errors.NetnsError) as error:
        click.echo(f"kproxy: {error}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone (`kproxy … | head`): not worth a message, also not
        # that of the interpreter, which would flush the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0
