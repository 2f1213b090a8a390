"""Options and arguments that several client commands have, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from ._completion import complete_app, complete_fn, complete_trigger

DEFAULT_SERVER = "http://localhost:8080"
"""Fn's client's."""

Server = Annotated[
    str,
    typer.Option(
        "--server", envvar="FN_API_URL", metavar="URL", help="The node whose API is asked."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config", "-c", metavar="KEY=VALUE", help="Configuration; repeatable. KEY= removes KEY."
    ),
]
Annotations = Annotated[
    list[str] | None,
    typer.Option(
        "--annotation",
        metavar="KEY=JSON",
        help="Annotation, a JSON value or a text; repeatable. KEY= removes KEY.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", "--force", "-f", help="Do not ask.")]
AppName = Annotated[
    str,
    typer.Argument(metavar="APP", help="Name of the app.", autocompletion=complete_app),
]
FnName = Annotated[
    str,
    typer.Argument(metavar="FN", help="Name of the function.", autocompletion=complete_fn),
]
TriggerName = Annotated[
    str,
    typer.Argument(metavar="TRIGGER", help="Name of the trigger.", autocompletion=complete_trigger),
]
NewName = Annotated[str, typer.Argument(metavar="NAME", help="Its name, to be made.")]


def texts(pairs: Sequence[str] | None, option: str) -> dict[str, str]:
    """``KEY=VALUE`` options as a mapping. A bad one is a usage error."""
    found: dict[str, str] = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
        found[key] = value
    return found


def json_values(pairs: Sequence[str] | None, option: str) -> dict[str, msgspec.Raw]:
    """The same with values that are JSON, or else taken as texts; none removes its key."""
    return {key: _json(value) for key, value in texts(pairs, option).items()}


def _json(text: str) -> msgspec.Raw:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    return msgspec.Raw(msgspec.json.encode(value))
