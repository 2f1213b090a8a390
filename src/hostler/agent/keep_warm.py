"""Keep functions ready whose annotation asks for it: declared functions, or functions of a
database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog
import trio

from .. import options
from .._concurrency.signal import Signal
from ..abc import CallRequest
from ..datastore import AppFilter, Datastore, FnFilter
from ..errors import APIError
from ..functions import FunctionTable
from ..models import App, Fn
from .template import min_warm
from .warm import WarmHold

if TYPE_CHECKING:
    from .agent import Agent, StartupAction

log = structlog.get_logger(__name__)

PAGE = 100
"""Apps, or functions of one app, that are read at a time."""
QUIET_SECONDS = 1.0
"""Minimum time between two readings, however often something changes."""
REFRESH_SECONDS = 60.0
"""The database is read again after so long without news: other nodes may have changed it."""


def keep_declared_warm(functions: FunctionTable) -> StartupAction:
    """For `open_agent`: launch the containers that the functions' annotation ``hostler/min-warm``
    asks for, before their first calls and for as long as the agent lives.

    Does not wait for them. A function that can't be kept ready (too big, or refused by the call
    overrider) is logged and left out.
    """

    async def action(agent: Agent) -> None:
        await trio.lowlevel.checkpoint()
        for app, fn in map(functions.lookup, functions.fns):
            _hold(agent, app, fn)

    return action


async def keep_stored_warm(agent: Agent, store: Datastore, changed: Signal) -> None:
    """Keep the functions of ``store`` ready whose annotation asks for it, and follow their changes.
    Never returns. Cancelling it releases what it keeps ready.

    The store is read again when ``changed`` happens, and now and then. While it can't be read, for
    whatever reason, nothing changes, because a node must not end for that.
    """
    held: _Held = {}
    try:
        while True:
            # A reading is not interrupted, however long it takes.
            async with trio.open_nursery() as nursery:
                # Wait from before the reading on, or a change during it would be missed.
                nursery.start_soon(_wait_for_news, changed)
                await _follow(agent, store, held)
            await trio.sleep(QUIET_SECONDS)
    finally:
        for _, _, hold in held.values():
            if isinstance(hold, WarmHold):
                hold.release()


async def _wait_for_news(changed: Signal) -> None:
    with trio.move_on_after(REFRESH_SECONDS):
        await changed.wait()


_Held = dict[str, tuple[App, Fn, WarmHold | str | None]]
"""The app, the function and the result of `_hold`, by the function's id."""


async def _follow(agent: Agent, store: Datastore, held: _Held) -> None:
    """Bring ``held`` up to date. Try refused functions again: the reason may have passed."""
    refused: dict[str, str] = {}
    try:
        found = {fn.id: (app, fn) async for app, fn in _wanted(store)}
    except Exception as error:  # noqa: BLE001  (logged there)
        _log_trouble("functions to be kept ready can't be read", error)
        return
    for fn_id, (app, fn, hold) in tuple(held.items()):
        if isinstance(hold, str):
            refused[fn_id] = hold
        elif found.get(fn_id) == (app, fn):
            del found[fn_id]
            continue
        del held[fn_id]
        if isinstance(hold, WarmHold):
            hold.release()
    for fn_id, (app, fn) in found.items():
        held[fn_id] = app, fn, _hold(agent, app, fn, told=refused.get(fn_id, ""))


async def _wanted(store: Datastore) -> AsyncIterator[tuple[App, Fn]]:
    cursor = ""
    while True:
        apps = await store.apps.list(AppFilter(cursor=cursor, per_page=PAGE))
        for app in apps.items:
            next_fns = ""
            while True:
                where = FnFilter(app_id=app.id, cursor=next_fns, per_page=PAGE)
                fns = await store.fns.list(where)
                for fn in fns.items:
                    if min_warm({**app.annotations, **fn.annotations}):
                        yield app, fn
                if not (next_fns := fns.next_cursor):
                    break
        if not (cursor := apps.next_cursor):
            return


def _hold(agent: Agent, app: App, fn: Fn, *, told: str = "") -> WarmHold | str | None:
    """The hold that keeps the containers of ``fn`` ready; ``None`` if it wants none; or the reason
    why it can't have them, which is logged unless it was ``told`` before."""
    count = min_warm({**app.annotations, **fn.annotations})
    if not count:
        return None
    request = CallRequest(method="POST", url="/", headers={})
    try:
        return agent.keep_warm(
            agent.get_call(options.from_http_fn_request(app, fn, request)), count
        )
    except Exception as error:  # noqa: BLE001  (logged there; a driver's own code has a say in it)
        if (why := repr(error)) != told:
            _log_trouble("can't keep a function ready", error, fn_id=fn.id)
        return why


def _log_trouble(event: str, error: Exception, **details: str) -> None:
    if isinstance(error, APIError):
        log.warning(event, reason=str(error), **details)
    else:
        log.error(event, exc_info=error, **details)
