"""``hostler trigger``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hostler.datastore import TriggerPatch
from hostler.models import Trigger

from ._names import all_triggers, app_named, fn_named, trigger_named
from ._options import (
    DEFAULT_SERVER,
    Annotations,
    AppName,
    AsJson,
    FnName,
    NewName,
    Server,
    TriggerName,
    Yes,
    json_values,
)
from ._session import confirm, with_api
from ._show import TRIGGER_ENDPOINT, print_done, print_item, print_items

if TYPE_CHECKING:
    from hostler.api_client import ApiClient

triggers = typer.Typer(help="Triggers: paths that call functions.", no_args_is_help=True)
_SOURCE = "Its path below /t/APP, with a leading slash."


@triggers.command()
def create(
    app_name: AppName,
    fn_name: FnName,
    name: NewName,
    source: Annotated[str, typer.Option(metavar="PATH", help=_SOURCE)],
    annotation: Annotations = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Make a trigger of a function."""
    annotations = json_values(annotation, "--annotation")

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
        made = await api.create_trigger(new)
        print_done(f"created trigger {app_name}/{fn_name}/{name}", made, as_json)

    with_api(server, work)


@triggers.command("list")
def list_(
    app_name: AppName,
    fn_name: Annotated[str, typer.Argument(metavar="[FN]", help="Only of this function.")] = "",
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """List the triggers of an app, or of one function, by name."""

    async def work(api: ApiClient) -> None:
        app = await app_named(api, app_name)
        fn = await fn_named(api, app, fn_name) if fn_name else None
        columns = [("NAME", "name"), ("SOURCE", "source"), ("ENDPOINT", TRIGGER_ENDPOINT)]
        print_items(await all_triggers(api, app, fn), columns, as_json)

    with_api(server, work)


@triggers.command()
def inspect(
    app_name: AppName,
    fn_name: FnName,
    trigger_name: TriggerName,
    endpoint: Annotated[
        bool, typer.Option("--endpoint", help="Print only the URL that calls it.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Show all of a trigger."""

    async def work(api: ApiClient) -> None:
        found = await _find(api, app_name, fn_name, trigger_name)
        print_item(found, as_json, only=TRIGGER_ENDPOINT if endpoint else "")

    with_api(server, work)


@triggers.command()
def update(
    app_name: AppName,
    fn_name: FnName,
    trigger_name: TriggerName,
    source: Annotated[str, typer.Option(metavar="PATH", help=_SOURCE)] = "",
    annotation: Annotations = None,
    server: Server = DEFAULT_SERVER,
    as_json: AsJson = False,
) -> None:
    """Change what is given; all else stays."""
    patch = TriggerPatch(source=source, annotations=json_values(annotation, "--annotation"))

    async def work(api: ApiClient) -> None:
        found = await _find(api, app_name, fn_name, trigger_name)
        changed = await api.update_trigger(found.id, patch)
        print_done(f"updated trigger {app_name}/{fn_name}/{trigger_name}", changed, as_json)

    with_api(server, work)


@triggers.command()
def delete(
    app_name: AppName,
    fn_name: FnName,
    trigger_name: TriggerName,
    yes: Yes = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Remove a trigger."""
    confirm(f"Delete trigger {app_name}/{fn_name}/{trigger_name}?", yes)

    async def work(api: ApiClient) -> None:
        await api.delete_trigger((await _find(api, app_name, fn_name, trigger_name)).id)
        print_done(f"deleted trigger {app_name}/{fn_name}/{trigger_name}")

    with_api(server, work)


async def _find(api: ApiClient, app_name: str, fn_name: str, trigger_name: str) -> Trigger:
    app = await app_named(api, app_name)
    return await trigger_named(api, app, await fn_named(api, app, fn_name), trigger_name)
