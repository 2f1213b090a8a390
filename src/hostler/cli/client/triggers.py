"""``hostler trigger``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from ...datastore import TriggerPatch
from ...models import Trigger
from ..command import Group
from .names import all_triggers, app_named, confirm, fn_named, trigger_named, with_api
from .options import (
    annotation_option,
    app_argument,
    endpoint_option,
    fn_argument,
    json_option,
    new_name_argument,
    optional_fn_argument,
    server_option,
    trigger_argument,
    yes_option,
)
from .output import TRIGGER_ENDPOINT, print_done, print_item, print_items

if TYPE_CHECKING:
    from ...api_client import ApiClient

triggers = Group(help="Triggers: paths that call functions.")
_SOURCE = "Path of the trigger below /t/APP, with a leading slash."


@triggers.command()
@app_argument
@fn_argument
@new_name_argument
@click.option("--source", metavar="PATH", required=True, help=_SOURCE)
@annotation_option
@server_option
@json_option
def create(
    app_name: str,
    fn_name: str,
    name: str,
    source: str,
    annotations: dict[str, msgspec.Raw],
    server: str,
    as_json: bool,
) -> None:
    """Create a trigger for a function."""

    async def work(api: ApiClient) -> None:
        fn = await fn_named(api, await app_named(api, app_name), fn_name)
        new = Trigger(
            id="",
            name=name,
            app_id=fn.app_id,
            fn_id=fn.id,
            type="http",
            source=source,
            annotations=annotations,
        )
        made = await api.triggers.create(new)
        print_done(f"created trigger {app_name}/{fn_name}/{name}", made, as_json)

    with_api(server, work)


@triggers.command("list")
@app_argument
@optional_fn_argument
@server_option
@json_option
def list_(app_name: str, fn_name: str | None, server: str, as_json: bool) -> None:
    """List the triggers of an app, or of one function, by name."""

    async def work(api: ApiClient) -> None:
        app = await app_named(api, app_name)
        fn = await fn_named(api, app, fn_name) if fn_name else None
        columns = [("NAME", "name"), ("SOURCE", "source"), ("ENDPOINT", TRIGGER_ENDPOINT)]
        print_items(await all_triggers(api, app, fn), columns, as_json)

    with_api(server, work)


@triggers.command()
@app_argument
@fn_argument
@trigger_argument
@endpoint_option
@server_option
@json_option
def inspect(
    app_name: str, fn_name: str, trigger_name: str, endpoint: bool, server: str, as_json: bool
) -> None:
    """Show everything about a trigger."""

    async def work(api: ApiClient) -> None:
        found = await _find(api, app_name, fn_name, trigger_name)
        print_item(found, as_json, only=TRIGGER_ENDPOINT if endpoint else "")

    with_api(server, work)


@triggers.command()
@app_argument
@fn_argument
@trigger_argument
@click.option("--source", metavar="PATH", default="", help=_SOURCE)
@annotation_option
@server_option
@json_option
def update(
    app_name: str,
    fn_name: str,
    trigger_name: str,
    source: str,
    annotations: dict[str, msgspec.Raw],
    server: str,
    as_json: bool,
) -> None:
    """Change only what the options name."""
    patch = TriggerPatch(source=source, annotations=annotations)

    async def work(api: ApiClient) -> None:
        found = await _find(api, app_name, fn_name, trigger_name)
        changed = await api.triggers.update(found.id, patch)
        print_done(f"updated trigger {app_name}/{fn_name}/{trigger_name}", changed, as_json)

    with_api(server, work)


@triggers.command()
@app_argument
@fn_argument
@trigger_argument
@yes_option
@server_option
def delete(app_name: str, fn_name: str, trigger_name: str, yes: bool, server: str) -> None:
    """Delete a trigger."""
    confirm(f"Delete trigger {app_name}/{fn_name}/{trigger_name}?", yes)

    async def work(api: ApiClient) -> None:
        await api.triggers.delete((await _find(api, app_name, fn_name, trigger_name)).id)
        print_done(f"deleted trigger {app_name}/{fn_name}/{trigger_name}")

    with_api(server, work)


async def _find(api: ApiClient, app_name: str, fn_name: str, trigger_name: str) -> Trigger:
    app = await app_named(api, app_name)
    return await trigger_named(api, app, await fn_named(api, app, fn_name), trigger_name)
