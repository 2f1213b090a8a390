"""Groups of commands."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


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
