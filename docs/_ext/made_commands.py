"""The command line, of the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import typer.main
from tables import table

from hostler.cli._commands import app

_HEAD = """\
# The command line

What `--help` shows, for all commands. An option that is not given has the value of its variable.
"""


def commands_page() -> str:
    command: Any = typer.main.get_command(app)
    return "\n".join([_HEAD, *_described(command, "hostler")])


def _described(command: Any, path: str) -> Iterator[str]:
    yield f"## `{path}`\n\n{_text(command.help)}\n"
    if usage := " ".join(command.collect_usage_pieces(click.Context(command))):
        yield f"`{path} {usage}`\n"
    rows = [_option(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        yield table(("option", "variable", "meaning"), rows)
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _described(child, f"{path} {name}")


def _option(parameter: Any) -> tuple[str, str, str]:
    names = " ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    return names, variable, _text(getattr(parameter, "help", "") or "")


def _text(text: str) -> str:
    return text.replace("<", r"\<").replace("[", r"\[")
