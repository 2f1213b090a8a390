"""Names for the shell's completion, asked of the API. Silent, and quick to give up."""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs
import click
import trio

from hostler.config import NodeConfig
from hostler.errors import HostlerError
from hostler.logs import open_logs

SECONDS = 2.0
"""How long somebody who pressed the tab key may have to wait for a server."""


def complete_app(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, "app")


def complete_fn(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, "fn")


def complete_trigger(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, "trigger")


def _names(ctx: click.Context, incomplete: str, kind: str) -> list[str]:
    from ._options import DEFAULT_SERVER

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
    from hostler.api_client import open_api_client
    from hostler.config import ApiConfig

    from ._names import all_apps, all_fns, all_triggers, app_named, fn_named

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
