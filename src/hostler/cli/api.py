"""``hostler api``, and commands for its database: ``migrate``, ``export``, ``import``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import APIError
from ..nodes.extensions import load_extensions
from ..nodes.lifetime import Node
from ..nodes.settings import ApiSettings
from .client.errors import CommandFailed, exit_code, run_command, without_password
from .client.names import all_apps, all_fns, all_triggers
from .client.options import from_option
from .client.output import say
from .options import LifeOptions, bind_option, file, given, life_options, overlay
from .process import run_node

if TYPE_CHECKING:
    from ..datastore import Contents
    from ..store import Migration, Side


@click.command()
@bind_option("all interfaces")
@life_options
def api(bind: str | None, life: LifeOptions) -> None:
    """Run an API node: it manages apps, functions and triggers.

    It serves /v2 from a database (FN_DB_URL) and takes no calls.
    """

    def make() -> Node:
        from ..nodes.api import ApiNode

        settings = ApiSettings(
            env=overlay(life.variables()), extension_names=life.extensions, **given(bind=bind)
        )
        return ApiNode(settings=settings, extensions=load_extensions(settings))

    sys.exit(run_node(make, life.ready_fd))


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing, and say what would be done."
)


@click.command()
@click.option(
    "--use",
    type=click.Choice(["fn", "hostler"]),
    help="Whose contents to go on with, if Fn changed its tables after hostler took them over.",
)
@dry_run_option
def migrate(use: Side | None, dry_run: bool) -> None:
    """Bring the database (FN_DB_URL) up to date, and take over what Fn has in it.

    Nodes do this when they start. Fn's own tables stay as they are, so that Fn can be started
    again.
    """

    async def work() -> None:
        from ..config import StoreConfig
        from ..store import database_name, migrate_database

        config = StoreConfig.from_env()
        name = database_name(config)
        done = await migrate_database(config, use=use or "", dry_run=dry_run)
        for step in _steps(done, "would be " if dry_run else ""):
            say(f"{name}: {step}")
        if dry_run:
            say("nothing was changed")

    run_command(work)


def _steps(done: Migration, would: str) -> list[str]:
    steps = []
    if done.before is None:
        steps.append(f"hostler's tables {would}made")
    elif done.before != done.after:
        revisions = f"from revision {done.before} to {done.after}"
        steps.append(f"hostler's tables {would}brought {revisions}")
    if done.fn is not None and done.action == "take over":
        instead = f", in place of {done.own}" if done.own.apps else ""
        steps.append(f"{done.fn.contents} {would}taken over from {done.fn}{instead}")
        steps += [f"left out: {text}" for text in done.fn.left_out]
    elif done.fn is not None and done.action == "keep":
        steps.append(f"{done.own} {would}kept, and {done.fn.contents} of Fn's left where they are")
    return steps or ["up to date"]


@click.command()
@click.argument(
    "target", metavar="[FILE]", type=file, default="-", help="File to write. [default: -]"
)
@from_option
def export(target: str, source: str) -> None:
    """Write all apps, functions and triggers to a file, for a backup.

    It reads the database (FN_DB_URL), also while nodes use it. Without FILE, or with -, it writes
    to the standard output.
    """

    async def work() -> None:
        from .._api_documents import encode_export

        contents = await (_contents_at(source) if source else _stored_contents())
        text = encode_export(contents)
        if target == "-":
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
            return
        _write_whole(Path(target), text)
        say(f"{contents} exported to {target}")

    run_command(work)


@click.command("import")
@click.argument("file_name", metavar="[FILE]", type=file, required=False, help="File to read.")
@from_option
@dry_run_option
def import_(file_name: str | None, source: str, dry_run: bool) -> None:
    """Put the apps, functions and triggers of a file of `hostler export` into the database.

    They keep their ids, so that the URLs of functions stay. What the database (FN_DB_URL) has
    besides stays as it is. A second import of the same changes nothing. FILE may be -, the standard
    input.
    """
    if bool(file_name) == bool(source):
        raise click.UsageError("give a FILE of hostler export, or --from the URL of a node")

    async def work() -> None:
        from .._api_documents import decode_export
        from ..store import open_datastore

        if source:
            contents = await _contents_at(source)
        else:
            contents = decode_export(_read(file_name))
        async with open_datastore(migrate=not dry_run) as store:
            changes = await store.put(contents, dry_run=dry_run)
        would = "would be " if dry_run else ""
        for title in changes.created:
            say(f"{title} {would}created")
        for title in changes.updated:
            say(f"{title} {would}changed")
        say(
            f"{len(changes.created)} created, {len(changes.updated)} changed, "
            f"{changes.unchanged} unchanged"
        )
        if dry_run:
            say("nothing was changed")

    run_command(work)


def _read(file_name: str | None) -> bytes:
    if file_name in (None, "-"):
        return sys.stdin.buffer.read()
    return Path(file_name).read_bytes()


async def _stored_contents() -> Contents:
    from ..store import open_datastore

    async with open_datastore(migrate=False) as store:
        return await store.contents()


async def _contents_at(url: str) -> Contents:
    """What the API at ``url`` tells. Triggers are listed by app and by function: Fn skips some of
    the same name between pages of an app, and those of an app may call another app's functions."""
    from .._api_documents import without_endpoints
    from ..api_client import open_api_client
    from ..config import ApiConfig
    from ..datastore import Contents

    try:
        async with open_api_client(url, ApiConfig.from_env()) as client:
            apps = await all_apps(client)
            fns = [fn for app in apps for fn in await all_fns(client, app)]
            triggers = {}
            for app in apps:
                found = await all_triggers(client, app)
                for fn in fns:
                    if fn.app_id == app.id:
                        found += await all_triggers(client, app, fn)
                triggers.update({trigger.id: trigger for trigger in found})
    except APIError as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        text = f"{without_password(url)} can't be read ({reason}). Is --from right?"
        raise CommandFailed(text, exit_code(error)) from error
    for app in apps:
        app.annotations = without_endpoints(app.annotations)
    for fn in fns:
        fn.annotations = without_endpoints(fn.annotations)
    for trigger in triggers.values():
        trigger.annotations = without_endpoints(trigger.annotations)
    return Contents(apps, fns, [*triggers.values()])


def _write_whole(path: Path, text: bytes) -> None:
    """Replace the file, or leave it as it was. Configurations hold secrets: only its owner may read
    it."""
    part = path.with_name(f"{path.name}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writer:
            writer.write(text)
            writer.flush()
            os.fsync(writer.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
