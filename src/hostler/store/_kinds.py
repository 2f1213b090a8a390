"""What apps, functions and triggers have in common as rows: one table each, whose columns are the
fields of the model."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, delete, insert, select, update

from hostler.datastore import Page
from hostler.errors import APIError
from hostler.ids import new_id
from hostler.models import App, Fn, Trigger
from hostler.rules.errors import AppNotFound, FnNotFound, TriggerNotFound

from ._pages import page
from ._rows import DECODERS, ENCODERS, now
from ._schema import apps, fns, triggers

Thing = TypeVar("Thing", App, Fn, Trigger)


@attrs.frozen(eq=False)
class Kind(Generic[Thing]):
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


APPS = Kind(App, apps, AppNotFound)
FNS = Kind(Fn, fns, FnNotFound)
TRIGGERS = Kind(Trigger, triggers, TriggerNotFound)
