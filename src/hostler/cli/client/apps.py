"""``hostler app``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...datastore import AppPatch
from ...models import App
from ..command import Group
from ..options import together
from .names import all_apps, app_named, confirmed, with_api
from .options import (
    annotation_option,
    app_argument,
    config_option,
    json_option,
    new_name_argument,
    server_option,
    yes_option,
)
from .output import print_done, print_item, print_items

if TYPE_CHECKING:
    from ...api_client import ApiClient

apps = Group(help="Apps: groups of functions.")
_fields = together(
    config_option,
    annotation_option,
    click.option(
        "--syslog-url",
        metavar="URL",
        help="Syslog URL that also gets the output of the app's functions.",
    ),
)


@apps.command()
@new_name_argument
@_fields
@server_option
@json_option
@with_api
async def create(api: ApiClient, name: str, as_json: bool, **fields: Any) -> None:
    """Create an app."""
    fields["syslog_url"] = fields["syslog_url"] or ""
    new = App(id="", name=name, **fields)
    print_done(f"created app {name}", await api.apps.create(new), as_json)


@apps.command("list")
@server_option
@json_option
@with_api
async def list_(api: ApiClient, as_json: bool) -> None:
    """List all apps by name."""
    columns = [("NAME", "name"), ("ID", "id"), ("UPDATED", "updated_at")]
    print_items(await all_apps(api), columns, as_json)


@apps.command()
@app_argument
@server_option
@json_option
@with_api
async def inspect(api: ApiClient, app_name: str, as_json: bool) -> None:
    """Show everything about an app."""
    print_item(await app_named(api, app_name), as_json)


@apps.command()
@app_argument
@_fields
@server_option
@json_option
@with_api
async def update(api: ApiClient, app_name: str, as_json: bool, **fields: Any) -> None:
    """Change an app: only what the options name. A syslog URL of "" removes the URL."""
    found = await app_named(api, app_name)
    changed = await api.apps.update(found.id, AppPatch(**fields))
    print_done(f"updated app {app_name}", changed, as_json)


@apps.command()
@app_argument
@yes_option
@server_option
@confirmed("Delete app {app_name} with its functions and triggers?")
@with_api
async def delete(api: ApiClient, app_name: str) -> None:
    """Delete an app with its functions and triggers."""
    await api.apps.delete((await app_named(api, app_name)).id)
    print_done(f"deleted app {app_name}")
