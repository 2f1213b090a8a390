"""Apps, functions and triggers as rows: insert, change, find, page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    and_,
    delete,
    insert,
    or_,
    select,
    update,
)

from ..datastore import AppFilter, AppPatch, FnFilter, FnPatch, Page, TriggerFilter, TriggerPatch
from ..errors import APIError
from ..ids import new_id
from ..models import App, Fn, Trigger
from ..rules import (
    Limits,
    PageCursor,
    decode_cursor,
    encode_cursor,
    merge_app,
    merge_fn,
    merge_trigger,
)
from ..rules.errors import (
    AppExists,
    AppNotFound,
    FnExists,
    FnNotFound,
    TriggerExists,
    TriggerFnNotInApp,
    TriggerNotFound,
    TriggerSourceExists,
)
from .schema import DECODERS, ENCODERS, apps, fns, now, triggers

Thing = TypeVar("Thing", App, Fn, Trigger)


@attrs.frozen(eq=False)
class ThingTable(Generic[Thing]):
    """One of the three. All is done within the caller's transaction."""

    model: type[Thing]
    table: Table
    missing: type[APIError]
    """Raised for what is not there."""

    def insert(self, connection: Connection, new: Thing) -> Thing:
        """Give ``new`` its id and dates, and keep it."""
        date = now()
        kept: Thing = attrs.evolve(new, id=new_id(), created_at=date, updated_at=date)
        connection.execute(insert(self.table).values(_row_of(kept)))
        return kept

    def load(self, connection: Connection, id: str, *, lock: bool = False) -> Thing:
        return self.load_where(connection, self.table.c.id == id, lock=lock)

    def load_where(
        self, connection: Connection, *conditions: ColumnElement[bool], lock: bool = False
    ) -> Thing:
        query = select(self.table).where(*conditions)
        row = connection.execute(query.with_for_update() if lock else query).mappings().first()
        if row is None:
            raise self.missing
        return self.of(row)

    def save(self, connection: Connection, old: Thing, changed: Thing) -> Thing:
        """Keep what ``old`` has become, with its new date."""
        kept: Thing = attrs.evolve(changed, updated_at=now(after=old.updated_at))
        where = self.table.c.id == old.id
        connection.execute(update(self.table).where(where).values(_row_of(kept)))
        return kept

    def remove(self, connection: Connection, id: str) -> None:
        """With what belongs to it: its foreign keys cascade."""
        if not connection.execute(delete(self.table).where(self.table.c.id == id)).rowcount:
            raise self.missing

    def page(
        self,
        connection: Connection,
        conditions: list[ColumnElement[bool]],
        cursor: str,
        per_page: int,
    ) -> Page[Thing]:
        return page(connection, self.table, conditions, cursor, per_page, self.of)

    def of(self, row: RowMapping) -> Thing:
        """The model of a row, which may have other tables' columns, too."""
        return self.model(
            **{
                name: DECODERS[name](row[column]) if name in DECODERS else row[column]
                for name, column in self.table.c.items()
            }
        )


def _row_of(thing: App | Fn | Trigger) -> dict[str, object]:
    values = attrs.asdict(thing, recurse=False)
    return {
        name: ENCODERS[name](value) if name in ENCODERS else value for name, value in values.items()
    }


APPS = ThingTable(App, apps, AppNotFound)

FNS = ThingTable(Fn, fns, FnNotFound)

TRIGGERS = ThingTable(Trigger, triggers, TriggerNotFound)

Item = TypeVar("Item")


def page(
    connection: Connection,
    table: Table,
    conditions: list[ColumnElement[bool]],
    cursor: str,
    per_page: int,
    item_of: Callable[[RowMapping], Item],
) -> Page[Item]:
    """The rows that fulfil all ``conditions`` and come after ``cursor``. Raises `InvalidCursor`."""
    query = select(table).where(*conditions).order_by(table.c.name, table.c.id)
    if cursor:
        query = query.where(_after(table, decode_cursor(cursor)))
    if per_page > 0:
        query = query.limit(per_page + 1)
    rows = connection.execute(query).mappings().all()
    shown = rows[:per_page] if per_page > 0 else rows
    full = per_page > 0 and len(shown) == per_page
    return Page([item_of(row) for row in shown], _next(table, rows, per_page) if full else "")


def _after(table: Table, cursor: PageCursor) -> ColumnElement[bool]:
    later: ColumnElement[bool] = table.c.name > cursor.name
    if not cursor.id:
        return later
    return or_(later, and_(table.c.name == cursor.name, table.c.id > cursor.id))


def _next(table: Table, rows: Any, per_page: int) -> str:
    last = rows[per_page - 1]
    name = last[table.c.name]
    more_of_the_name = len(rows) > per_page and rows[per_page][table.c.name] == name
    return encode_cursor(PageCursor(name, last[table.c.id] if more_of_the_name else ""))


def insert_app(connection: Connection, app: App) -> App:
    if connection.scalar(select(apps.c.id).where(apps.c.name == app.name)) is not None:
        raise AppExists
    return APPS.insert(connection, app)


def change_app(connection: Connection, app_id: str, patch: AppPatch) -> App:
    app = APPS.load(connection, app_id, lock=True)
    changed = merge_app(app, patch)
    return app if changed is app else APPS.save(connection, app, changed)


def find_app_id(connection: Connection, name: str) -> str:
    app_id: str | None = connection.scalar(select(apps.c.id).where(apps.c.name == name))
    if app_id is None:
        raise AppNotFound
    return app_id


def page_of_apps(connection: Connection, where: AppFilter) -> Page[App]:
    conditions = [apps.c.name == where.name] if where.name else []
    return APPS.page(connection, conditions, where.cursor, where.per_page)


def insert_fn(connection: Connection, fn: Fn) -> Fn:
    shape = connection.scalar(select(apps.c.shape).where(apps.c.id == fn.app_id))
    if shape is None:
        raise AppNotFound
    same = select(fns.c.id).where(fns.c.app_id == fn.app_id, fns.c.name == fn.name)
    if connection.scalar(same) is not None:
        raise FnExists
    return FNS.insert(connection, attrs.evolve(fn, shape=shape))


def load_app_and_fn(connection: Connection, fn_id: str) -> tuple[App, Fn]:
    query = select(apps, fns).join_from(fns, apps).where(fns.c.id == fn_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise FnNotFound
    return APPS.of(row), FNS.of(row)


def change_fn(connection: Connection, fn_id: str, patch: FnPatch, limits: Limits) -> Fn:
    fn = FNS.load(connection, fn_id, lock=True)
    changed = merge_fn(fn, patch, limits)
    return fn if changed is fn else FNS.save(connection, fn, changed)


def page_of_fns(connection: Connection, where: FnFilter) -> Page[Fn]:
    conditions = [fns.c.app_id == where.app_id]
    if where.name:
        conditions.append(fns.c.name == where.name)
    return FNS.page(connection, conditions, where.cursor, where.per_page)


def insert_trigger(connection: Connection, trigger: Trigger) -> Trigger:
    _check_against_others(connection, trigger)
    return TRIGGERS.insert(connection, trigger)


def _check_against_others(connection: Connection, trigger: Trigger) -> None:
    """In Fn's order. What is in the way of a change and not yet there is told by the table's
    constraints; the transaction is repeated then, and finds it here."""
    if connection.scalar(select(apps.c.id).where(apps.c.id == trigger.app_id)) is None:
        raise AppNotFound
    app_id = connection.scalar(select(fns.c.app_id).where(fns.c.id == trigger.fn_id))
    if app_id is None:
        raise FnNotFound
    if app_id != trigger.app_id:
        raise TriggerFnNotInApp
    if _is_taken(
        connection,
        trigger,
        triggers.c.app_id == trigger.app_id,
        triggers.c.type == trigger.type,
        triggers.c.source == trigger.source,
    ):
        raise TriggerSourceExists
    same_fn = triggers.c.fn_id == trigger.fn_id
    if _is_taken(connection, trigger, same_fn, triggers.c.name == trigger.name):
        raise TriggerExists


def _is_taken(connection: Connection, trigger: Trigger, *conditions: ColumnElement[bool]) -> bool:
    query = select(triggers.c.id).where(*conditions, triggers.c.id != trigger.id)
    return connection.scalar(query) is not None


def load_trigger_by_source(connection: Connection, app_id: str, type: str, source: str) -> Trigger:
    return TRIGGERS.load_where(
        connection,
        triggers.c.app_id == app_id,
        triggers.c.type == type,
        triggers.c.source == source,
    )


def change_trigger(connection: Connection, trigger_id: str, patch: TriggerPatch) -> Trigger:
    trigger = TRIGGERS.load(connection, trigger_id, lock=True)
    changed = merge_trigger(trigger, patch)
    if changed is trigger:
        return trigger
    _check_against_others(connection, changed)
    return TRIGGERS.save(connection, trigger, changed)


def page_of_triggers(connection: Connection, where: TriggerFilter) -> Page[Trigger]:
    conditions = [triggers.c.app_id == where.app_id]
    if where.fn_id:
        conditions.append(triggers.c.fn_id == where.fn_id)
    if where.name:
        conditions.append(triggers.c.name == where.name)
    return TRIGGERS.page(connection, conditions, where.cursor, where.per_page)
