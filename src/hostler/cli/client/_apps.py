"""``hostler app``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hostler.datastore import AppPatch
from hostler.models import App

from ._names import all_apps, app_named
from ._options import (
    DEFAULT_SERVER,
    Annotations,
    AppName,
    AsJson,
    Config,
    NewName,
    Server,
    Yes,
    json_values,
    texts,
)
from ._session import confirm, with_api
from ._show import print_done, print_item, print_items

if TYPE_CHECKING:
    from hostler.api_client import ApiClient

apps = typer.Typer(help="Apps: groups of functions.", no_args_is_help=True)
Syslog = Annotated[
    str | None,
    typer.Option("--syslog-url", metavar="URL", help="Where its functions' output goes, too."),
]


@apps.command()
def create(
    name: NewName,
    config: Config = None,
    annotation: Annotations = None,
    syslog_url: Syslog = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Make an app."""
    new = App(
        id="",
        name=name,
        config=texts(config, "--config"),
        annotations=json_values(annotation, "--annotation"),
        syslog_url=syslog_url or "",
    )

    async def work(api: ApiClient) -> None:
        print_done(f"created app {name}", await api.create_app(new), as_json)

    with_api(server, work)


@apps.command("list")
def list_(server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """List all apps, by name."""

    async def work(api: ApiClient) -> None:
        columns = [("NAME", "name"), ("ID", "id"), ("UPDATED", "updated_at")]
        print_items(await all_apps(api), columns, as_json)

    with_api(server, work)


@apps.command()
def inspect(app_name: AppName, server: Server = DEFAULT_SERVER, as_json: AsJson = False) -> None:
    """Show all of an app."""

    async def work(api: ApiClient) -> None:
        print_item(await app_named(api, app_name), as_json)

    with_api(server, work)


@apps.command()
def update(
    app_name: AppName,
    config: Config = None,
    annotation: Annotations = None,
    syslog_url: Syslog = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change what is given; all else stays. A syslog URL of "" removes it."""
    patch = AppPatch(
        config=texts(config, "--config"),
        annotations=json_values(annotation, "--annotation"),
        syslog_url=syslog_url,
    )

    async def work(api: ApiClient) -> None:
        found = await app_named(api, app_name)
        print_done(f"updated app {app_name}", await api.update_app(found.id, patch), as_json)

    with_api(server, work)


@apps.command()
def delete(app_name: AppName, yes: Yes = False, server: Server = DEFAULT_SERVER) -> None:
    """Remove an app with its functions and triggers."""
    confirm(f"Delete app {app_name} with its functions and triggers?", yes)

    async def work(api: ApiClient) -> None:
        await api.delete_app((await app_named(api, app_name)).id)
        print_done(f"deleted app {app_name}")

    with_api(server, work)
