"""Options and arguments that several client commands have, and their values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from hostler.config import is_host

from ._completion import complete_app, complete_fn, complete_trigger
from ._exits import without_password

DEFAULT_SERVER = "http://localhost:8080"
"""Fn's client's."""


def _name(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Nothing is called "": it is what a script gives whose variable is not set."""
    if value == "":
        raise click.BadParameter("a name can't be empty")
    return value


def _texts(_: click.Context, parameter: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` as a mapping."""
    found: dict[str, str] = {}
    for pair in pairs:
        if not is_unicode(pair):
            raise click.BadParameter(f"{pair!r} is not UTF-8")
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{pair!r} is not {parameter.metavar}")
        found[key] = value
    return found


def _json_values(
    ctx: click.Context, parameter: click.Parameter, pairs: Sequence[str]
) -> dict[str, msgspec.Raw]:
    """The same with values that are JSON, or else taken as texts; none removes its key."""
    return {key: _json(value) for key, value in _texts(ctx, parameter, pairs).items()}


def _json(text: str) -> msgspec.Raw:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        value = text
    return msgspec.Raw(msgspec.json.encode(value))


def is_unicode(text: str) -> bool:
    """Python has what is not UTF-8 of the command line in characters of its own."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _url(_: click.Context, parameter: click.Parameter, url: str) -> str:
    if not _is_url(url):
        shown = without_password(url)
        raise click.BadParameter(f"{shown!r} is no URL of a node: takes http(s)://host:port")
    return url


def _urls(ctx: click.Context, parameter: click.Parameter, urls: Sequence[str]) -> Sequence[str]:
    return [_url(ctx, parameter, url) for url in urls]


def _url_or_none(ctx: click.Context, parameter: click.Parameter, url: str) -> str:
    return url and _url(ctx, parameter, url)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and host != "" and is_host(host)


server_option = click.option(
    "--server",
    envvar="FN_API_URL",
    show_envvar=True,
    metavar="URL",
    default=DEFAULT_SERVER,
    callback=_url,
    show_default=True,
    help="URL of the node whose API the command uses.",
)
servers_option = click.option(
    "--server",
    "servers",
    envvar="FN_API_URL",
    show_envvar=True,
    metavar="URL",
    multiple=True,
    default=[DEFAULT_SERVER],
    callback=_urls,
    show_default=True,
    help="URL of a node; repeatable.",
)
api_option = click.option(
    "--api",
    metavar="URL",
    default="",
    callback=_url_or_none,
    help="The node that knows the names; default: first --server.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
config_option = click.option(
    "--config",
    "-c",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_texts,
    help="Configuration; repeatable. KEY= removes KEY.",
)
annotation_option = click.option(
    "--annotation",
    "annotations",
    metavar="KEY=JSON",
    multiple=True,
    callback=_json_values,
    help="Annotation, a JSON value or a text; repeatable. KEY= removes KEY.",
)
endpoint_option = click.option("--endpoint", is_flag=True, help="Print only the URL that calls it.")
yes_option = click.option("--yes", "-y", "--force", "-f", "yes", is_flag=True, help="Do not ask.")
app_argument = click.argument(
    "app_name", metavar="APP", callback=_name, shell_complete=complete_app, help="Name of the app."
)
optional_app_argument = click.argument(
    "app_name",
    metavar="[APP]",
    required=False,
    callback=_name,
    shell_complete=complete_app,
    help="Only of this app.",
)
fn_argument = click.argument(
    "fn_name",
    metavar="FN",
    callback=_name,
    shell_complete=complete_fn,
    help="Name of the function.",
)
optional_fn_argument = click.argument(
    "fn_name",
    metavar="[FN]",
    required=False,
    callback=_name,
    shell_complete=complete_fn,
    help="Only of this function.",
)
trigger_argument = click.argument(
    "trigger_name",
    metavar="TRIGGER",
    callback=_name,
    shell_complete=complete_trigger,
    help="Name of the trigger.",
)
folder_argument = partial(
    click.argument,
    "folder",
    metavar="[DIR]",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
)
new_name_argument = click.argument(
    "name", metavar="NAME", callback=_name, help="Its name, to be made."
)
