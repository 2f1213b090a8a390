"""Apps, functions and triggers as rows: insert, change, find, page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic

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

from ..datastore import (
    AppFilter,
    AppPatch,
    Filter,
    FnFilter,
    FnPatch,
    Page,
    Patch,
    Thing,
    TriggerFilter,
    TriggerPatch,
)
from ..errors import APIError
from ..ids import new_id
from ..models import App, Fn, Trigger
from ..rules import (
    Limits,
    PageCursor,
    check_new_app,
    check_new_fn,
    check_new_trigger,
    decode_cursor,
    encode_cursor,
    errors,
    merge_app,
    merge_fn,
    merge_trigger,
)
from .schema import DECODERS, ENCODERS, apps, fns, now, triggers


class ThingTable(ABC, Generic[Thing, Patch, Filter]):
    """One of the three tables. All is done within the caller's transaction."""

    model: type[Thing]
    table: Table
    missing: type[APIError]
    """Raised for an unknown id."""
    missing_id: type[APIError]
    """Raised for an id of ""."""
    other_id: type[APIError]
    """Raised for a patch with another id."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    @abstractmethod
    def check(self, new: Thing) -> Thing:
        """What is kept of ``new``. Raises what is wrong with its values."""

    @abstractmethod
    def merge(self, thing: Thing, patch: Patch) -> Thing:
        """The changed thing; ``thing`` itself if nothing changes."""

    @abstractmethod
    def conditions(self, where: Filter) -> list[ColumnElement[bool]]:
        """The conditions that the rows of a list meet."""

    @abstractmethod
    def fit(self, connection: Connection, new: Thing) -> Thing:
        """Check ``new`` against other rows, in Fn's order, and return what is kept of it.

        If another transaction adds a row meanwhile, a constraint of the table fails, the
        transaction is repeated, and this check finds the row.
        """

    def check_where(self, where: Filter) -> None:
        """Raises if ``where`` must name an app and does not."""

    def fit_change(self, connection: Connection, changed: Thing) -> Thing:
        """As `fit`. By default a change concerns no other rows."""
        return changed

    def insert(self, connection: Connection, new: Thing) -> Thing:
        """Give ``new`` its id and dates, and keep it."""
        date = now()
        fitting = self.fit(connection, new)
        kept: Thing = attrs.evolve(fitting, id=new_id(), created_at=date, updated_at=date)
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

    def change(self, connection: Connection, id: str, patch: Patch) -> Thing:
        """Merge ``patch`` into it. Keeps the result, with a new date, if something has changed."""
        thing = self.load(connection, id, lock=True)
        changed = self.merge(thing, patch)
        if changed is thing:
            return thing
        fitting = self.fit_change(connection, changed)
        kept: Thing = attrs.evolve(fitting, updated_at=now(after=thing.updated_at))
        connection.execute(update(self.table).where(self.table.c.id == id).values(_row_of(kept)))
        return kept

    def remove(self, connection: Connection, id: str) -> None:
        """Remove it with what belongs to it: foreign keys cascade."""
        if not connection.execute(delete(self.table).where(self.table.c.id == id)).rowcount:
            raise self.missing

    def page(self, connection: Connection, where: Filter) -> Page[Thing]:
        """The rows that ``where`` asks for. Raises `InvalidCursor`."""
        table, per_page = self.table, where.per_page
        query = select(table).where(*self.conditions(where)).order_by(table.c.name, table.c.id)
        if where.cursor:
            query = query.where(_after(table, decode_cursor(where.cursor)))
        if per_page > 0:
            query = query.limit(per_page + 1)
        rows = connection.execute(query).mappings().all()
        shown = rows[:per_page] if per_page > 0 else rows
        full = per_page > 0 and len(shown) == per_page
        return Page([self.of(row) for row in shown], _next(table, rows, per_page) if full else "")

    def named(self, where: Filter, **owners: str) -> list[ColumnElement[bool]]:
        """The conditions on the name of ``where`` and on the columns of ``owners``; "" = any."""
        wanted = {**owners, "name": where.name}
        return [self.table.c[column] == value for column, value in wanted.items() if value]

    @classmethod
    def of(cls, row: RowMapping) -> Thing:
        """The model of a row. The row may also have columns of other tables."""
        return cls.model(
            **{
                name: DECODERS[name](row[column]) if name in DECODERS else row[column]
                for name, column in cls.table.c.items()
            }
        )


def _row_of(thing: App | Fn | Trigger) -> dict[str, object]:
    values = attrs.asdict(thing, recurse=False)
    return {
        name: ENCODERS[name](value) if name in ENCODERS else value for name, value in values.items()
    }


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


class AppTable(ThingTable[App, AppPatch, AppFilter]):
    """Apps."""

    model, table = App, apps
    missing = errors.AppNotFound
    missing_id = errors.AppMissingID
    other_id = errors.AppIDMismatch

    def check(self, new: App) -> App:
        return check_new_app(new)

    def merge(self, thing: App, patch: AppPatch) -> App:
        return merge_app(thing, patch)

    def conditions(self, where: AppFilter) -> list[ColumnElement[bool]]:
        return self.named(where)

    def fit(self, connection: Connection, new: App) -> App:
        if connection.scalar(select(apps.c.id).where(apps.c.name == new.name)) is not None:
            raise errors.AppExists
        return new


class FnTable(ThingTable[Fn, FnPatch, FnFilter]):
    """Functions."""

    model, table = Fn, fns
    missing = errors.FnNotFound
    missing_id = errors.FnMissingID
    other_id = errors.FnIDMismatch

    def check(self, new: Fn) -> Fn:
        return check_new_fn(new, self.limits)

    def merge(self, thing: Fn, patch: FnPatch) -> Fn:
        return merge_fn(thing, patch, self.limits)

    def check_where(self, where: FnFilter) -> None:
        if not where.app_id:
            raise errors.FnMissingAppID

    def conditions(self, where: FnFilter) -> list[ColumnElement[bool]]:
        return self.named(where, app_id=where.app_id)

    def fit(self, connection: Connection, new: Fn) -> Fn:
        shape = connection.scalar(select(apps.c.shape).where(apps.c.id == new.app_id))
        if shape is None:
            raise errors.AppNotFound
        same = select(fns.c.id).where(fns.c.app_id == new.app_id, fns.c.name == new.name)
        if connection.scalar(same) is not None:
            raise errors.FnExists
        return attrs.evolve(new, shape=shape)


class TriggerTable(ThingTable[Trigger, TriggerPatch, TriggerFilter]):
    """Triggers."""

    model, table = Trigger, triggers
    missing, missing_id, other_id = (
        errors.TriggerNotFound,
        errors.TriggerMissingID,
        errors.TriggerIDMismatch,
    )

    def check(self, new: Trigger) -> Trigger:
        return check_new_trigger(new)

    def merge(self, thing: Trigger, patch: TriggerPatch) -> Trigger:
        return merge_trigger(thing, patch)

    def check_where(self, where: TriggerFilter) -> None:
        if not where.app_id:
            raise errors.TriggerMissingAppID

    def conditions(self, where: TriggerFilter) -> list[ColumnElement[bool]]:
        return self.named(where, app_id=where.app_id, fn_id=where.fn_id)

    def fit(self, connection: Connection, new: Trigger) -> Trigger:
        if connection.scalar(select(apps.c.id).where(apps.c.id == new.app_id)) is None:
            raise errors.AppNotFound
        app_id = connection.scalar(select(fns.c.app_id).where(fns.c.id == new.fn_id))
        if app_id is None:
            raise errors.FnNotFound
        if app_id != new.app_id:
            raise errors.TriggerFnNotInApp
        if _is_taken(
            connection,
            new,
            triggers.c.app_id == new.app_id,
            triggers.c.type == new.type,
            triggers.c.source == new.source,
        ):
            raise errors.TriggerSourceExists
        same_fn = triggers.c.fn_id == new.fn_id
        if _is_taken(connection, new, same_fn, triggers.c.name == new.name):
            raise errors.TriggerExists
        return new

    def fit_change(self, connection: Connection, changed: Trigger) -> Trigger:
        return self.fit(connection, changed)


def _is_taken(connection: Connection, trigger: Trigger, *conditions: ColumnElement[bool]) -> bool:
    query = select(triggers.c.id).where(*conditions, triggers.c.id != trigger.id)
    return connection.scalar(query) is not None


def find_app_id(connection: Connection, name: str) -> str:
    app_id: str | None = connection.scalar(select(apps.c.id).where(apps.c.name == name))
    if app_id is None:
        raise errors.AppNotFound
    return app_id


def load_app_and_fn(connection: Connection, fn_id: str) -> tuple[App, Fn]:
    query = select(apps, fns).join_from(fns, apps).where(fns.c.id == fn_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise errors.FnNotFound
    return AppTable.of(row), FnTable.of(row)
