"""``kproxy proxy`` as a command among the others: its line in ``kproxy --help``.

``kproxy.__main__`` takes a shorter way to the same function, without the command line library.
"""

import click

from kproxy.cli import nodeproxy


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def proxy(context: click.Context) -> int:
    """Run the node proxy. Flags are kube-proxy's own: see `kproxy proxy --help`."""
    return nodeproxy.main(context.args)
