"""``hostler fn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from ...datastore import FnPatch
from ...models import Fn
from ..command import Group
from ..options import CountType
from .names import all_fns, app_named, confirm, fn_named, with_api
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
_memory_option = click.option(
    "--memory",
    "-m",
    type=CountType(),
    default=0,
    show_default=True,
    help="MB; 0 = default, or as it is.",
)
_timeout_option = click.option(
    "--timeout",
    type=CountType(),
    default=0,
    show_default=True,
    help="Seconds a call may take; 0 as above.",
)
_idle_timeout_option = click.option(
    "--idle-timeout",
    type=CountType(),
    default=0,
    show_default=True,
    help="Seconds it stays hot; 0 as above.",
)


@fns.command()
@app_argument
@new_name_argument
@click.argument("image", metavar="IMAGE", help="What runs.")
@_memory_option
@_timeout_option
@_idle_timeout_option
@config_option
@annotation_option
@server_option
@json_option
def create(
    app_name: str,
    name: str,
    image: str,
    memory: int,
    timeout: int,
    idle_timeout: int,
    config: dict[str, str],
    annotations: dict[str, msgspec.Raw],
    server: str,
    as_json: bool,
) -> None:
    """Make a function of an app."""
    new = Fn(
        id="",
        name=name,
        app_id="",
        image=image,
        memory=memory,
        timeout=timeout,
        idle_timeout=idle_timeout,
        config=config,
        annotations=annotations,
    )

    async def work(api: ApiClient) -> None:
        new.app_id = (await app_named(api, app_name)).id
        print_done(f"created function {app_name}/{name}", await api.fns.create(new), as_json)

    with_api(server, work)


@fns.command("list")
@app_argument
@server_option
@json_option
def list_(app_name: str, server: str, as_json: bool) -> None:
    """List the functions of an app, by name."""

    async def work(api: ApiClient) -> None:
        columns = [
            ("NAME", "name"),
            ("IMAGE", "image"),
            ("MEMORY", "memory"),
            ("TIMEOUT", "timeout"),
            ("ENDPOINT", FN_ENDPOINT),
        ]
        print_items(await all_fns(api, await app_named(api, app_name)), columns, as_json)

    with_api(server, work)


@fns.command()
@app_argument
@fn_argument
@endpoint_option
@server_option
@json_option
def inspect(app_name: str, fn_name: str, endpoint: bool, server: str, as_json: bool) -> None:
    """Show all of a function."""

    async def work(api: ApiClient) -> None:
        found = await fn_named(api, await app_named(api, app_name), fn_name)
        print_item(found, as_json, only=FN_ENDPOINT if endpoint else "")

    with_api(server, work)


@fns.command()
@app_argument
@fn_argument
@click.option("--image", default="", help="The image to run from now on.")
@_memory_option
@_timeout_option
@_idle_timeout_option
@config_option
@annotation_option
@server_option
@json_option
def update(
    app_name: str,
    fn_name: str,
    image: str,
    memory: int,
    timeout: int,
    idle_timeout: int,
    config: dict[str, str],
    annotations: dict[str, msgspec.Raw],
    server: str,
    as_json: bool,
) -> None:
    """Change what is given; all else stays."""
    patch = FnPatch(
        image=image,
        memory=memory,
        timeout=timeout,
        idle_timeout=idle_timeout,
        config=config,
        annotations=annotations,
    )

    async def work(api: ApiClient) -> None:
        found = await fn_named(api, await app_named(api, app_name), fn_name)
        changed = await api.fns.update(found.id, patch)
        print_done(f"updated function {app_name}/{fn_name}", changed, as_json)

    with_api(server, work)


@fns.command()
@app_argument
@fn_argument
@yes_option
@server_option
def delete(app_name: str, fn_name: str, yes: bool, server: str) -> None:
    """Remove a function with its triggers."""
    confirm(f"Delete function {app_name}/{fn_name} with its triggers?", yes)

    async def work(api: ApiClient) -> None:
        found = await fn_named(api, await app_named(api, app_name), fn_name)
        await api.fns.delete(found.id)
        print_done(f"deleted function {app_name}/{fn_name}")

    with_api(server, work)
