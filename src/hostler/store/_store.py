"""The datastore on SQL."""

from __future__ import annotations

from hostler.datastore import (
    AppFilter,
    AppPatch,
    FnFilter,
    FnPatch,
    Page,
    TriggerFilter,
    TriggerPatch,
)
from hostler.models import App, Fn, Trigger
from hostler.rules import Limits, check_new_app, check_new_fn, check_new_trigger
from hostler.rules.errors import (
    AppIDMismatch,
    AppMissingID,
    FnIDMismatch,
    FnMissingAppID,
    FnMissingID,
    TriggerIDMismatch,
    TriggerMissingAppID,
    TriggerMissingID,
)

from . import _apps, _fns, _triggers
from ._kinds import APPS, FNS, TRIGGERS
from ._transactions import Transactions


class SqlDatastore:
    """A `hostler.datastore.Datastore`, which says what the methods do; `open_datastore` makes it.

    An operation occupies a worker thread and a connection. It takes ``FN_DB_TIMEOUT`` at most,
    and a little over a second from when it is cancelled; a connection that is still to be made has
    that limit once more (2 s at least on PostgreSQL, by its library). Time is the real one: under
    a mock clock with autojump every operation is out of time at once.
    """

    def __init__(self, transactions: Transactions, limits: Limits) -> None:
        self._transactions = transactions
        self._limits = limits

    def __repr__(self) -> str:
        return f"<SqlDatastore {self._transactions!r}>"

    # --- apps ---

    async def list_apps(self, where: AppFilter) -> Page[App]:
        return await self._transactions.read(lambda db: _apps.page_of_apps(db, where))

    async def create_app(self, app: App) -> App:
        new = check_new_app(app)
        return await self._transactions.write(lambda db: _apps.insert_app(db, new))

    async def get_app(self, app_id: str) -> App:
        if not app_id:
            raise AppMissingID
        return await self._transactions.read(lambda db: APPS.load(db, app_id))

    async def update_app(self, app_id: str, patch: AppPatch) -> App:
        if not app_id:
            raise AppMissingID
        if patch.id not in ("", app_id):
            raise AppIDMismatch
        return await self._transactions.write(lambda db: _apps.change_app(db, app_id, patch))

    async def delete_app(self, app_id: str) -> None:
        if not app_id:
            raise AppMissingID
        await self._transactions.write(lambda db: APPS.remove(db, app_id))

    async def app_id_by_name(self, name: str) -> str:
        return await self._transactions.read(lambda db: _apps.find_app_id(db, name))

    # --- functions ---

    async def list_fns(self, where: FnFilter) -> Page[Fn]:
        if not where.app_id:
            raise FnMissingAppID
        return await self._transactions.read(lambda db: _fns.page_of_fns(db, where))

    async def create_fn(self, fn: Fn) -> Fn:
        new = check_new_fn(fn, self._limits)
        return await self._transactions.write(lambda db: _fns.insert_fn(db, new))

    async def get_fn(self, fn_id: str) -> Fn:
        if not fn_id:
            raise FnMissingID
        return await self._transactions.read(lambda db: FNS.load(db, fn_id))

    async def find(self, fn_id: str) -> tuple[App, Fn]:
        return await self._transactions.read(lambda db: _fns.load_app_and_fn(db, fn_id))

    async def update_fn(self, fn_id: str, patch: FnPatch) -> Fn:
        if not fn_id:
            raise FnMissingID
        if patch.id not in ("", fn_id):
            raise FnIDMismatch
        limits = self._limits
        return await self._transactions.write(lambda db: _fns.change_fn(db, fn_id, patch, limits))

    async def delete_fn(self, fn_id: str) -> None:
        if not fn_id:
            raise FnMissingID
        await self._transactions.write(lambda db: FNS.remove(db, fn_id))

    # --- triggers ---

    async def list_triggers(self, where: TriggerFilter) -> Page[Trigger]:
        if not where.app_id:
            raise TriggerMissingAppID
        return await self._transactions.read(lambda db: _triggers.page_of_triggers(db, where))

    async def create_trigger(self, trigger: Trigger) -> Trigger:
        new = check_new_trigger(trigger)
        return await self._transactions.write(lambda db: _triggers.insert_trigger(db, new))

    async def get_trigger(self, trigger_id: str) -> Trigger:
        if not trigger_id:
            raise TriggerMissingID
        return await self._transactions.read(lambda db: TRIGGERS.load(db, trigger_id))

    async def trigger_by_source(self, app_id: str, type: str, source: str) -> Trigger:
        return await self._transactions.read(
            lambda db: _triggers.load_trigger_by_source(db, app_id, type, source)
        )

    async def update_trigger(self, trigger_id: str, patch: TriggerPatch) -> Trigger:
        if not trigger_id:
            raise TriggerMissingID
        if patch.id not in ("", trigger_id):
            raise TriggerIDMismatch
        return await self._transactions.write(
            lambda db: _triggers.change_trigger(db, trigger_id, patch)
        )

    async def delete_trigger(self, trigger_id: str) -> None:
        if not trigger_id:
            raise TriggerMissingID
        await self._transactions.write(lambda db: TRIGGERS.remove(db, trigger_id))
