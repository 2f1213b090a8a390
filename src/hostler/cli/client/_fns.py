"""``hostler fn``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hostler.datastore import FnPatch
from hostler.models import Fn

from ._names import all_fns, app_named, fn_named
from ._options import (
    DEFAULT_SERVER,
    Annotations,
    AppName,
    AsJson,
    Config,
    FnName,
    NewName,
    Server,
    Yes,
    json_values,
    texts,
)
from ._session import confirm, with_api
from ._show import FN_ENDPOINT, print_done, print_item, print_items

if TYPE_CHECKING:
    from hostler.api_client import ApiClient

fns = typer.Typer(help="Functions: an image, and how to run it.", no_args_is_help=True)
Memory = Annotated[int, typer.Option("--memory", "-m", min=0, help="MB; 0 = default, or as it is.")]
Timeout = Annotated[int, typer.Option(min=0, help="Seconds a call may take; 0 as above.")]
IdleTimeout = Annotated[int, typer.Option(min=0, help="Seconds it stays hot; 0 as above.")]


@fns.command()
def create(
    app_name: AppName,
    name: NewName,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="What runs.")],
    memory: Memory = 0,
    timeout: Timeout = 0,
    idle_timeout: IdleTimeout = 0,
    config: Config = None,
    annotation: Annotations = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
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
        config=texts(config, "--config"),
        annotations=json_values(annotation, "--annotation"),
    )

    async def work(api: ApiClient) -> None:
        new.app_id = (await app_named(api, app_name)).id
        print_done(f"created function {app_name}/{name}", await api.create_fn(new), as_json)

    with_api(server, work)


@fns.command("list")
def list_(app_name: AppName, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
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
def inspect(
    app_name: AppName,
    fn_name: FnName,
    endpoint: Annotated[
        bool, typer.Option("--endpoint", help="Print only the URL that calls it.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Show all of a function."""

    async def work(api: ApiClient) -> None:
        found = await fn_named(api, await app_named(api, app_name), fn_name)
        print_item(found, as_json, only=FN_ENDPOINT if endpoint else "")

    with_api(server, work)


@fns.command()
def update(
    app_name: AppName,
    fn_name: FnName,
    image: Annotated[str, typer.Option(help="The image to run from now on.")] = "",
    memory: Memory = 0,
    timeout: Timeout = 0,
    idle_timeout: IdleTimeout = 0,
    config: Config = None,
    annotation: Annotations = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change what is given; all else stays."""
    patch = FnPatch(
        image=image,
        memory=memory,
        timeout=timeout,
        idle_timeout=idle_timeout,
        config=texts(config, "--config"),
        annotations=json_values(annotation, "--annotation"),
    )

    async def work(api: ApiClient) -> None:
        found = await fn_named(api, await app_named(api, app_name), fn_name)
        changed = await api.update_fn(found.id, patch)
        print_done(f"updated function {app_name}/{fn_name}", changed, as_json)

    with_api(server, work)


@fns.command()
def delete(
    app_name: AppName, fn_name: FnName, yes: Yes = False, server: Server = DEFAULT_SERVER
) -> None:
    """Remove a function with its triggers."""
    confirm(f"Delete function {app_name}/{fn_name} with its triggers?", yes)

    async def work(api: ApiClient) -> None:
        found = await fn_named(api, await app_named(api, app_name), fn_name)
        await api.delete_fn(found.id)
        print_done(f"deleted function {app_name}/{fn_name}")

    with_api(server, work)
