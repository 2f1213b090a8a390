"""Apps, functions and triggers by name, in one API session."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from ...config import ApiConfig
from ...datastore import AppFilter, FnFilter, Page, TriggerFilter
from ...models import App, Fn, Trigger
from .errors import NOT_FOUND, CommandFailed, run_command

if TYPE_CHECKING:
    from ...api_client import ApiClient

PER_PAGE = 100
"""The most that the API gives at once."""

_Filter = TypeVar("_Filter", AppFilter, FnFilter, TriggerFilter)
_Item = TypeVar("_Item", App, Fn, Trigger)


async def all_apps(api: ApiClient) -> list[App]:
    return await _all(api.apps.list, AppFilter(per_page=PER_PAGE))


async def all_fns(api: ApiClient, app: App) -> list[Fn]:
    return await _all(api.fns.list, FnFilter(app_id=app.id, per_page=PER_PAGE))


async def all_triggers(api: ApiClient, app: App, fn: Fn | None = None) -> list[Trigger]:
    where = TriggerFilter(app_id=app.id, fn_id=fn.id if fn else "", per_page=PER_PAGE)
    return await _all(api.triggers.list, where)


async def app_named(api: ApiClient, name: str) -> App:
    """Raises `CommandFailed` with what there is to do, as the next ones."""
    found = called(name, await api.apps.list(AppFilter(name=name)))
    if not found:
        raise _missing(f"there is no app {name!r}", name, await all_apps(api), "app list")
    # Only a single one is read with its endpoints.
    return await api.apps.get(found[0].id)


async def fn_named(api: ApiClient, app: App, name: str) -> Fn:
    found = called(name, await api.fns.list(FnFilter(app_id=app.id, name=name)))
    if not found:
        text = f"app {app.name!r} has no function {name!r}"
        raise _missing(text, name, await all_fns(api, app), f"fn list {app.name}")
    return await api.fns.get(found[0].id)


async def trigger_named(api: ApiClient, app: App, fn: Fn, name: str) -> Trigger:
    where = TriggerFilter(app_id=app.id, fn_id=fn.id, name=name)
    found = called(name, await api.triggers.list(where))
    if not found:
        text = f"function {fn.name!r} has no trigger {name!r}"
        there = await all_triggers(api, app, fn)
        raise _missing(text, name, there, f"trigger list {app.name}")
    return await api.triggers.get(found[0].id)


def called(name: str, page: Page[_Item]) -> list[_Item]:
    """An API that does not know the filter gives others, too; it is not these that are meant."""
    return [item for item in page.items if item.name == name]


def _missing(
    text: str, name: str, there: Sequence[App | Fn | Trigger], command: str
) -> CommandFailed:
    near = get_close_matches(name, [item.name for item in there], 1)
    hint = f"is it {near[0]!r}?" if near else f"see hostler {command}"
    return CommandFailed(f"{text}; {hint}", NOT_FOUND)


async def _all(ask: Callable[[_Filter], Awaitable[Page[_Item]]], where: _Filter) -> list[_Item]:
    found: list[_Item] = []
    while True:
        page = await ask(where)
        found += page.items
        if not page.next_cursor:
            return found
        where = attrs.evolve(where, cursor=page.next_cursor)


def with_api(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A decorator for a command with `server_option`: ``function`` runs as in `run_command`, with a
    client of the server's API as its first argument."""

    @functools.wraps(function)
    def command(server: str, **given: Any) -> None:
        from ...api_client import open_api_client

        async def run() -> None:
            async with open_api_client(server, ApiConfig.from_env()) as api:
                await function(api, **given)

        run_command(run, server)

    _, *others = inspect.signature(function).parameters.values()
    return _taking("server", others, command)


def confirmed(question: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for a command with `yes_option`: asks before something is lost, if there is
    somebody to ask. "No" ends the process with 1. ``question`` may name arguments in braces."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(yes: bool, **given: Any) -> None:
            if not yes and sys.stdin.isatty():
                click.confirm(question.format(**given), abort=True)
            function(**given)

        return _taking("yes", inspect.signature(function).parameters.values(), command)

    return decorate


def _taking(
    name: str, others: Iterable[inspect.Parameter], command: Callable[..., None]
) -> Callable[..., None]:
    """``command`` with a signature that names its options, as that of any command does."""
    own = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    command.__signature__ = inspect.Signature([own, *others])  # type: ignore[attr-defined]
    return command
