"""The command line, of the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

import click
from tables import table

from hostler.cli import app

_HEAD = """\
# The command line

This page shows the `--help` of all commands. Without the option, a command uses the option's
variable.
"""


def commands_page() -> str:
    return "\n".join([_HEAD, *_described(app, click.Context(app, info_name="hostler"))])


def _described(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield f"## `{ctx.command_path}`\n\n{_text(cleandoc(command.help or ''))}\n"
    if usage := " ".join(command.collect_usage_pieces(ctx)):
        yield f"`{ctx.command_path} {usage}`\n"
    rows = [_row(parameter) for parameter in command.params]
    if rows:
        yield table(("option", "variable", "meaning"), rows)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from _described(child, click.Context(child, parent=ctx, info_name=name))


def _row(parameter: click.Parameter) -> tuple[str, str, str]:
    names = " ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    return names, variable, _text(parameter.help or "")


def _text(text: str) -> str:
    return text.replace("<", r"\<").replace("[", r"\[")
