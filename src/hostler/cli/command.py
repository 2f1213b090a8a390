"""Command groups, loaded lazily; Fn's node types.

The commands that run nodes, and their options. What a node is made of is imported when it is
made: help and completion must not wait for it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Any

import click

from ..config import NodeConfig, look_up, setting_variables
from ..errors import ConfigError
from .errors import tell
from .process import leave_process_1, open_missing_streams


class Group(click.Group):
    """Shows its commands in the order in which they were made."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class LazyGroup(click.Group):
    """Imports a command when it is wanted: a node needs none of the client's, nor of other nodes'.

    ``places`` says where the commands are (``module:attribute``, relative to this package), by
    name and in the order of the help.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        # Click looks among all for what an unknown name may have been meant to be.
        for name in [cmd_name] if cmd_name in self._places else self._places:
            if name not in self.commands:
                self.add_command(_loaded(self._places[name]), name)
        return super().get_command(ctx, cmd_name)


def _loaded(place: str) -> click.Command:
    module, _, attribute = place.partition(":")
    try:
        command = getattr(import_module(module, __package__), attribute)
    except KeyboardInterrupt:  # click would say "Aborted!" and end with 1
        sys.exit(128 + signal.SIGINT)
    assert isinstance(command, click.Command)
    return command


_PLACES = {
    "serve": ".serve:serve",
    "lb": ".lb:lb",
    "api": ".api:api",
    "runner": ".runner:runner",
    "migrate": ".api:migrate",
    "export": ".api:export",
    "import": ".api:import_",
    "version": ".command:version",
    "invoke": ".client.invoke:invoke",
    "run": ".client.run:run",
    "deploy": ".client.deploy:deploy",
    "logs": ".client.logs:logs",
    "status": ".client.status:status",
    "app": ".client.apps:apps",
    "fn": ".client.fns:fns",
    "trigger": ".client.triggers:triggers",
}


def _show_completion(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .client.shell import completion_script

        click.echo(completion_script(app))
        ctx.exit()


def _install_completion(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from .client.shell import install_completion

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
    """Run functions on a pool of runners that keep their containers hot.

    Every setting is an environment variable FN_…. Some settings are also options. The help of such
    an option names the variable, and the option wins. The first SIGTERM or SIGINT drains a node.
    Another one, at least a second later, stops the node at once.
    """


def main() -> None:
    """The entry point of the ``hostler`` command.

    Without arguments it is the node that Fn's settings in the environment ask for, as Fn's server.
    Without any of them it shows its help.
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


_COMMANDS = {"full": "serve", "api": "api", "lb": "lb", "pure-runner": "runner", "runner": "runner"}


def command_of(env: Mapping[str, str]) -> list[str]:
    """The arguments for ``FN_NODE_TYPE`` (or ``FN_NODE_TYPE_FILE``). Without it they are those for
    a full node if the environment has another setting of a node, and none if it has not.

    As Fn's, a full node listens on all interfaces, and a pure runner serves HTTP on ``FN_PORT``
    too. Raises `ConfigError`, also for settings that the rest of the node type lacks.
    """
    if look_up(env, "FN_NODE_TYPE") is None and not _has_settings(env):
        return []
    config = NodeConfig.from_env(env)
    arguments = [_COMMANDS[config.node_type]]
    if not env.get("FN_HTTP_BIND", "").strip():
        if arguments == ["runner"]:
            arguments += ["--http-bind", f":{config.port}"]
        elif arguments == ["serve"]:
            arguments += ["--bind", f":{config.port}"]
    return arguments


_CLIENT_VARIABLES = {"FN_TOKEN", "FN_INVOKE_TOKEN"}
"""Settings that clients read, too: they alone don't ask for a node."""


def _has_settings(env: Mapping[str, str]) -> bool:
    names = setting_variables() - _CLIENT_VARIABLES
    return any(env.get(name) or env.get(f"{name}_FILE") for name in names)


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(installed_version("hostler"))
