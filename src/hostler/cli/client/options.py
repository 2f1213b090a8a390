"""Options, arguments and their completion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import click
import msgspec
import trio

from ...config import NodeConfig, is_host
from ...errors import HostlerError
from ...logs import open_logs
from ..options import bundle
from .errors import without_password

SECONDS = 2.0
"""How long somebody who pressed the tab key may have to wait for a server."""


def _completion(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda ctx, _, incomplete: _names(ctx, incomplete, kind)


complete_app, complete_fn, complete_trigger = map(_completion, ("app", "fn", "trigger"))


def _names(ctx: click.Context, incomplete: str, kind: str) -> list[str]:
    server = (
        ctx.params.get("api")
        or ctx.params.get("server")
        or ctx.params.get("servers")
        or os.environ.get("FN_API_URL")
        or DEFAULT_SERVER
    )
    if not isinstance(server, str):  # where several may be given, the first one knows the names
        server = server[0]
    try:
        with open_logs(NodeConfig(log_level="fatal")):
            found = trio.run(_ask, server, kind, ctx.params, strict_exception_groups=True)
    except (HostlerError, OSError):
        return []  # there is nobody to tell: the line being typed must stay as it is
    return [name for name in found if name.startswith(incomplete)]


async def _ask(server: str, kind: str, given: Mapping[str, str | None]) -> list[str]:
    """``given`` has ``None`` for a name that can't be right: nothing has it."""
    from ...api_client import open_api_client
    from ...config import ApiConfig
    from .names import all_apps, all_fns, all_triggers, app_named, fn_named

    config = attrs.evolve(ApiConfig.from_env(), api_timeout=SECONDS)
    async with open_api_client(server, config) as api:
        # Only now: a busy machine takes long to load all this, and is not the server's delay.
        with trio.move_on_after(SECONDS):
            if kind == "app":
                return [app.name for app in await all_apps(api)]
            app = await app_named(api, given["app_name"] or "")
            if kind == "fn":
                return [fn.name for fn in await all_fns(api, app)]
            fn = await fn_named(api, app, given["fn_name"] or "")
            return [trigger.name for trigger in await all_triggers(api, app, fn)]
    return []


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
    help="URL of the node whose API to use.",
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
    help="URL of the node that knows the names. [default: first --server]",
)

from_option = click.option(
    "--from",
    "source",
    metavar="URL",
    default="",
    callback=_url_or_none,
    help="URL of a node, of hostler or Fn, whose API to read instead.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

config_option = click.option(
    "--config",
    "-c",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_texts,
    help="Configuration variable; repeatable. KEY= removes it.",
)

annotation_option = click.option(
    "--annotation",
    "annotations",
    metavar="KEY=JSON",
    multiple=True,
    callback=_json_values,
    help="Annotation, as JSON or as plain text; repeatable. KEY= removes it.",
)

endpoint_option = click.option("--endpoint", is_flag=True, help="Print only the URL for calls.")
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
    help="Only this app.",
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
    help="Only this function.",
)


@attrs.frozen
class FnPath:
    """A function by its names."""

    app_name: str
    fn_name: str

    def __str__(self) -> str:
        return f"{self.app_name}/{self.fn_name}"


fn_arguments = bundle(FnPath, "fn", app_argument, fn_argument)


@attrs.frozen
class TriggerPath(FnPath):
    """A trigger by its names."""

    trigger_name: str

    def __str__(self) -> str:
        return f"{self.app_name}/{self.fn_name}/{self.trigger_name}"


trigger_arguments = bundle(
    TriggerPath,
    "trigger",
    app_argument,
    fn_argument,
    click.argument(
        "trigger_name",
        metavar="TRIGGER",
        callback=_name,
        shell_complete=complete_trigger,
        help="Name of the trigger.",
    ),
)

new_trigger_arguments = bundle(
    TriggerPath,
    "trigger",
    app_argument,
    fn_argument,
    click.argument("trigger_name", metavar="NAME", callback=_name, help="Name for the new one."),
)

folder_argument = partial(
    click.argument,
    "folder",
    metavar="[DIR]",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
)

new_name_argument = click.argument("name", metavar="NAME", callback=_name, help="Name to give it.")
