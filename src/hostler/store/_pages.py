"""Pages of rows, in the order of their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, or_, select

from hostler.datastore import Page
from hostler.rules import Cursor, decode_cursor, encode_cursor

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


def _after(table: Table, cursor: Cursor) -> ColumnElement[bool]:
    later: ColumnElement[bool] = table.c.name > cursor.name
    if not cursor.id:
        return later
    return or_(later, and_(table.c.name == cursor.name, table.c.id > cursor.id))


def _next(table: Table, rows: Any, per_page: int) -> str:
    last = rows[per_page - 1]
    name = last[table.c.name]
    more_of_the_name = len(rows) > per_page and rows[per_page][table.c.name] == name
    return encode_cursor(Cursor(name, last[table.c.id] if more_of_the_name else ""))
