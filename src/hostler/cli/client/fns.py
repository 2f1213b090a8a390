"""``hostler fn``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...datastore import FnPatch
from ...models import Fn
from ..command import Group
from ..options import CountType, together
from .names import all_fns, app_named, confirmed, fn_named, with_api
from .options import (
    annotation_option,
    app_argument,
    config_option,
    endpoint_option,
    fn_argument,
    json_option,
    new_name_argument,
    server_option,
    yes_option,
)
from .output import FN_ENDPOINT, print_done, print_item, print_items

if TYPE_CHECKING:
    from ...api_client import ApiClient

fns = Group(help="Functions: an image, and how to run it.")


def _limit(name: str, *short: str, text: str) -> Any:
    return click.option(
        name,
        *short,
        type=CountType(),
        default=0,
        show_default=True,
        help=f"{text} 0 = the server's default, or no change in an update.",
    )


_fields = together(
    _limit("--memory", "-m", text="MB of memory for a container."),
    _limit("--timeout", text="Maximum seconds that a call may take."),
    _limit("--idle-timeout", text="Seconds that an idle container is kept."),
    config_option,
    annotation_option,
)


@fns.command()
@app_argument
@new_name_argument
@click.argument("image", metavar="IMAGE", help="Image that its containers run.")
@_fields
@server_option
@json_option
@with_api
async def create(api: ApiClient, app_name: str, name: str, as_json: bool, **fields: Any) -> None:
    """Create a function in an app."""
    app = await app_named(api, app_name)
    made = await api.fns.create(Fn(id="", name=name, app_id=app.id, **fields))
    print_done(f"created function {app_name}/{name}", made, as_json)


@fns.command("list")
@app_argument
@server_option
@json_option
@with_api
async def list_(api: ApiClient, app_name: str, as_json: bool) -> None:
    """List the functions of an app by name."""
    columns = [
        ("NAME", "name"),
        ("IMAGE", "image"),
        ("MEMORY", "memory"),
        ("TIMEOUT", "timeout"),
        ("ENDPOINT", FN_ENDPOINT),
    ]
    print_items(await all_fns(api, await app_named(api, app_name)), columns, as_json)


@fns.command()
@app_argument
@fn_argument
@endpoint_option
@server_option
@json_option
@with_api
async def inspect(
    api: ApiClient, app_name: str, fn_name: str, endpoint: bool, as_json: bool
) -> None:
    """Show everything about a function."""
    found = await fn_named(api, await app_named(api, app_name), fn_name)
    print_item(found, as_json, only=FN_ENDPOINT if endpoint else "")


@fns.command()
@app_argument
@fn_argument
@click.option("--image", default="", help="Image that new containers run.")
@_fields
@server_option
@json_option
@with_api
async def update(api: ApiClient, app_name: str, fn_name: str, as_json: bool, **fields: Any) -> None:
    """Change a function: only what the options name."""
    found = await fn_named(api, await app_named(api, app_name), fn_name)
    changed = await api.fns.update(found.id, FnPatch(**fields))
    print_done(f"updated function {app_name}/{fn_name}", changed, as_json)


@fns.command()
@app_argument
@fn_argument
@yes_option
@server_option
@confirmed("Delete function {app_name}/{fn_name} with its triggers?")
@with_api
async def delete(api: ApiClient, app_name: str, fn_name: str) -> None:
    """Delete a function with its triggers."""
    found = await fn_named(api, await app_named(api, app_name), fn_name)
    await api.fns.delete(found.id)
    print_done(f"deleted function {app_name}/{fn_name}")
