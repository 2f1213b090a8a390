"""Which functions there are, and their names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs
import structlog
import trio

from hostler.datastore import AppFilter, Datastore, FnFilter
from hostler.functions import Catalog, FunctionTable
from hostler.models import App, Fn, Trigger

from ._activity import Activity

log = structlog.get_logger(__name__)

MAX_LISTED = 500
"""Functions that are listed at most."""
REFRESH_SECONDS = 10.0
"""Between two readings of the list, and only while somebody looks."""
READ_SECONDS = 3.0
"""A database that takes longer must not keep the page from showing the rest."""


@attrs.frozen
class Listing:
    """Functions with their apps."""

    functions: Sequence[tuple[App, Fn]] = ()
    complete: bool = True


Lister = Callable[[], Awaitable[Listing]]


class NotedCatalog:
    """A `Catalog` that tells ``activity`` the names of what was found in ``inner``."""

    def __init__(self, inner: Catalog, activity: Activity) -> None:
        self._inner = inner
        self._activity = activity

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        app, fn = await self._inner.find(fn_id)
        self._activity.note_fn(app, fn)
        return app, fn

    async def find_trigger(self, app_name: str, source: str) -> tuple[App, Fn, Trigger]:
        app, fn, trigger = await self._inner.find_trigger(app_name, source)
        self._activity.note_fn(app, fn)
        return app, fn, trigger


class Directory:
    """The functions that exist, read again when somebody looks and they were read long ago."""

    def __init__(self, read: Lister) -> None:
        self._read = read
        self._lock = trio.Lock()
        self._due = float("-inf")
        self.listing: Listing | None = None
        self.stale = False
        """They could not be read again."""

    async def refresh(self) -> None:
        """Make it young enough. Raises nothing; what is there stays if reading fails."""
        if trio.current_time() < self._due:
            return
        async with self._lock:
            if trio.current_time() < self._due:
                return
            try:
                with trio.fail_after(READ_SECONDS):
                    self.listing = await self._read()
                self.stale = False
            except Exception as error:  # noqa: BLE001  (a page without names is better than none)
                self.stale = True
                log.warning("functions can't be listed for the page", reason=str(error))
            self._due = trio.current_time() + REFRESH_SECONDS


def table_lister(table: FunctionTable) -> Lister:
    """Those of a declaration."""

    async def read() -> Listing:
        await trio.lowlevel.checkpoint()
        pairs = [(table.apps[fn.app_id], fn) for fn in table.fns.values()]
        return Listing(pairs[:MAX_LISTED], complete=len(pairs) <= MAX_LISTED)

    return read


def datastore_lister(store: Datastore) -> Lister:
    """Those of a database."""

    async def read() -> Listing:
        pairs: list[tuple[App, Fn]] = []
        apps = await store.list_apps(AppFilter(per_page=MAX_LISTED))
        for app in apps.items:
            left = MAX_LISTED - len(pairs)
            page = await store.list_fns(FnFilter(app_id=app.id, per_page=left))
            pairs.extend((app, fn) for fn in page.items)
            if len(pairs) == MAX_LISTED:
                return Listing(pairs, complete=False)
        return Listing(pairs, complete=not apps.next_cursor)

    return read
