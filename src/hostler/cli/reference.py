"""The reference page of the settings, made of the settings and of the commands themselves.

``scripts/generate`` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import click

from ..config import (
    AgentConfig,
    ApiConfig,
    BodyConfig,
    EnvConfig,
    LBConfig,
    NodeConfig,
    PlacerConfig,
    PoolConfig,
    RunnerConfig,
    SettingInfo,
    StoreConfig,
    describe,
)

_HEAD = """\
# Settings

Each setting is an environment variable and, in code, a field of a frozen class: `X.from_env()` or
`X(field=value)`. If `NAME_FILE` is set instead of `NAME`, the value is read from that file. A value
that can't be used ends the start with one line that names the variable, the value and the values
that it takes. An unknown variable whose name is close to a setting's name gets a warning.

Names, defaults and parsing are Fn's, unless a description says "ours". A setting that says "No
effect" exists only so that you can keep an environment made for Fn.

The first table lists variables that only the commands know.

`scripts/generate` makes this page.
"""

_COMMANDS = """\
## The commands: `hostler serve`, `api`, `lb`, `runner`, and the client's

Each variable is also an option, and the option wins. All of them are ours, and none has a
`NAME_FILE`.
"""

_SECTIONS: tuple[tuple[str, type[EnvConfig]], ...] = (
    ("Nodes and front end: `NodeConfig`", NodeConfig),
    ("What is kept of request bodies: `BodyConfig`", BodyConfig),
    ("Datastore: `StoreConfig`", StoreConfig),
    ("Looking up functions: `ApiConfig`", ApiConfig),
    ("LB agent: `LBConfig`", LBConfig),
    ("Placers: `PlacerConfig`", PlacerConfig),
    ("Runner pools: `PoolConfig`", PoolConfig),
    ("A runner's server: `RunnerConfig`", RunnerConfig),
    ("Runner's agent and drivers: `AgentConfig`", AgentConfig),
)


@attrs.define
class CommandVariable:
    """What an option says of its variable; one for all commands of which it says the same."""

    variable: str
    option: str
    default: str
    doc: str
    commands: list[str]


def reference_page(app: click.Group) -> str:
    """Markdown: a table of the commands' own variables, and one for each class of settings."""
    sections = (_section(title, kind) for title, kind in _SECTIONS)
    return "\n".join([_HEAD, _commands_section(app), *sections])


def command_variables(app: click.Group) -> list[CommandVariable]:
    """The variables that are read by the options of the commands of ``app``, in the order of the
    options."""
    found: dict[tuple[str, str, str], CommandVariable] = {}
    for command in _commands(app):
        for parameter in command["params"]:
            if not (variable := parameter.get("envvar")):
                continue
            option, default = parameter["opts"][0], _default(parameter["default"])
            place = (variable, option, parameter["help"])
            entry = CommandVariable(variable, option, default, parameter["help"], [])
            found.setdefault(place, entry).commands.append(command["name"])
    return sorted(found.values(), key=lambda entry: _first(entry.variable, found))


def _first(variable: str, found: Iterable[tuple[str, str, str]]) -> int:
    """Rows of one variable stand together, where it first appears."""
    return [each for each, _, _ in found].index(variable)


def _commands(app: click.Group) -> Iterator[dict[str, Any]]:
    """As Click describes them. Those of the groups have no variables but what others have."""
    ctx = click.Context(app)
    for name in app.list_commands(ctx):
        command = app.get_command(ctx, name)
        if command is not None and not isinstance(command, click.Group):
            yield command.to_info_dict(ctx)


def _default(value: object) -> str:
    """A default as its variable takes it."""
    if value in ("", (), [], None):
        return "(none)"
    if value == math.inf:
        return "no limit"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:.15g}`"
    return f"`{' '.join(value)}`" if isinstance(value, list | tuple) else f"`{value}`"


def _commands_section(app: click.Group) -> str:
    rows = [
        _row(
            f"`{entry.variable}`",
            f"`{entry.option}`",
            ", ".join(entry.commands),
            entry.default,
            entry.doc,
        )
        for entry in command_variables(app)
    ]
    return "\n".join(
        [_COMMANDS, *_head("variable", "option", "of", "default", "meaning"), *rows, ""]
    )


def _section(title: str, kind: type[EnvConfig]) -> str:
    rows = [_setting(info) for info in describe(kind)]
    return "\n".join(
        [f"## {title}", "", *_head("variable", "field", "takes", "default", "meaning"), *rows, ""]
    )


def _setting(info: SettingInfo) -> str:
    variable = f"`{info.variable}`" if info.variable else "(in code only)"
    doc = " ".join(info.doc.split()).replace("``", "`")
    default = _default(info.default)
    if "duration" in info.takes and info.default % 1:
        default = f"`{info.default * 1000:g}ms`"
    return _row(variable, f"`{info.field}`", info.takes, default, doc)


def _head(*names: str) -> Sequence[str]:
    return f"| {' | '.join(names)} |", "|" + "---|" * len(names)


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
