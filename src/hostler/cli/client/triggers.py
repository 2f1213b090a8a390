"""``hostler trigger``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from ...datastore import TriggerPatch
from ...models import Trigger
from ..command import Group
from .names import all_triggers, app_named, confirmed, fn_named, trigger_named, with_api
from .options import (
    TriggerPath,
    annotation_option,
    app_argument,
    endpoint_option,
    json_option,
    new_trigger_arguments,
    optional_fn_argument,
    server_option,
    trigger_arguments,
    yes_option,
)
from .output import TRIGGER_ENDPOINT, print_done, print_item, print_items

if TYPE_CHECKING:
    from ...api_client import ApiClient

triggers = Group(help="Triggers: paths that call functions.")
_SOURCE = "Path of the trigger below /t/APP, with a leading slash."


@triggers.command()
@new_trigger_arguments
@click.option("--source", metavar="PATH", required=True, help=_SOURCE)
@annotation_option
@server_option
@json_option
@with_api
async def create(
    api: ApiClient,
    trigger: TriggerPath,
    source: str,
    annotations: dict[str, msgspec.Raw],
    as_json: bool,
) -> None:
    """Create a trigger for a function."""
    fn = await fn_named(api, await app_named(api, trigger.app_name), trigger.fn_name)
    new = Trigger(
        id="",
        name=trigger.trigger_name,
        app_id=fn.app_id,
        fn_id=fn.id,
        type="http",
        source=source,
        annotations=annotations,
    )
    made = await api.triggers.create(new)
    print_done(f"created trigger {trigger}", made, as_json)


@triggers.command("list")
@app_argument
@optional_fn_argument
@server_option
@json_option
@with_api
async def list_(api: ApiClient, app_name: str, fn_name: str | None, as_json: bool) -> None:
    """List the triggers of an app, or of one function, by name."""
    app = await app_named(api, app_name)
    fn = await fn_named(api, app, fn_name) if fn_name else None
    columns = [("NAME", "name"), ("SOURCE", "source"), ("ENDPOINT", TRIGGER_ENDPOINT)]
    print_items(await all_triggers(api, app, fn), columns, as_json)


@triggers.command()
@trigger_arguments
@endpoint_option
@server_option
@json_option
@with_api
async def inspect(api: ApiClient, trigger: TriggerPath, endpoint: bool, as_json: bool) -> None:
    """Show everything about a trigger."""
    found = await _find(api, trigger)
    print_item(found, as_json, only=TRIGGER_ENDPOINT if endpoint else "")


@triggers.command()
@trigger_arguments
@click.option("--source", metavar="PATH", default="", help=_SOURCE)
@annotation_option
@server_option
@json_option
@with_api
async def update(
    api: ApiClient,
    trigger: TriggerPath,
    source: str,
    annotations: dict[str, msgspec.Raw],
    as_json: bool,
) -> None:
    """Change a trigger: only what the options name."""
    patch = TriggerPatch(source=source, annotations=annotations)
    found = await _find(api, trigger)
    changed = await api.triggers.update(found.id, patch)
    print_done(f"updated trigger {trigger}", changed, as_json)


@triggers.command()
@trigger_arguments
@yes_option
@server_option
@confirmed("Delete trigger {trigger}?")
@with_api
async def delete(api: ApiClient, trigger: TriggerPath) -> None:
    """Delete a trigger."""
    await api.triggers.delete((await _find(api, trigger)).id)
    print_done(f"deleted trigger {trigger}")


async def _find(api: ApiClient, path: TriggerPath) -> Trigger:
    app = await app_named(api, path.app_name)
    fn = await fn_named(api, app, path.fn_name)
    return await trigger_named(api, app, fn, path.trigger_name)
