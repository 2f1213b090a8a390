"""The ``hostler`` command: where its commands are, and its own options."""

from __future__ import annotations

import os
import sys

import click

from hostler.errors import ConfigError

from ._errors import tell
from ._groups import LazyGroup
from ._init import leave_process_1
from ._node_type import command_of
from ._streams import open_missing_streams

_PLACES = {
    "serve": ".commands._serve:serve",
    "lb": ".commands._lb:lb",
    "api": ".commands._api:api",
    "runner": ".commands._runner:runner",
    "version": ".commands._version:version",
    "invoke": ".client._invoke:invoke",
    "run": ".client._run:run",
    "deploy": ".client._deploy:deploy",
    "logs": ".client._logs:logs",
    "status": ".client._status:status",
    "app": ".client._apps:apps",
    "fn": ".client._fns:fns",
    "trigger": ".client._triggers:triggers",
}


def _show_completion(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .client._shell import completion_script

        click.echo(completion_script(app))
        ctx.exit()


def _install_completion(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .client._shell import install_completion

        click.echo(install_completion(app))
        ctx.exit()


@click.group(cls=LazyGroup, places=_PLACES)
@click.version_option(package_name="hostler", message="%(version)s", help="Print the version.")
@click.option(
    "--install-completion",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_install_completion,
    help="Install completion for the current shell.",
)
@click.option(
    "--show-completion",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_completion,
    help="Show completion for the current shell, to copy it or customize the installation.",
)
def app() -> None:
    """A runner pool for functions: places calls on runners and keeps containers hot.

    Every setting is a variable FN_…; those that an option sets too are named with it, and the
    option wins. A first SIGTERM or SIGINT drains, another one ends at once, if a second later.
    """


def main() -> None:
    """The entry point of the ``hostler`` command.

    Without arguments it is what ``FN_NODE_TYPE`` says, as Fn's server, or shows its help.
    """
    open_missing_streams()
    leave_process_1()
    arguments = sys.argv[1:]
    if not arguments:
        try:
            arguments = command_of(os.environ)
        except ConfigError as error:
            tell(str(error))
            sys.exit(1)
    app(arguments, prog_name="hostler")
