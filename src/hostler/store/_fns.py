"""What transactions do with functions."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection, delete, insert, select, update

from hostler.datastore import FnFilter, FnPatch, Page
from hostler.ids import new_id
from hostler.models import App, Fn
from hostler.rules import Limits, merge_fn
from hostler.rules.errors import AppNotFound, FnExists, FnNotFound

from ._pages import page
from ._rows import app_of, fn_of, fn_row, now
from ._schema import apps, fns


def insert_fn(connection: Connection, fn: Fn) -> Fn:
    shape = connection.scalar(select(apps.c.shape).where(apps.c.id == fn.app_id))
    if shape is None:
        raise AppNotFound
    same = select(fns.c.id).where(fns.c.app_id == fn.app_id, fns.c.name == fn.name)
    if connection.scalar(same) is not None:
        raise FnExists
    date = now()
    new = attrs.evolve(fn, id=new_id(), shape=shape, created_at=date, updated_at=date)
    connection.execute(insert(fns).values(fn_row(new)))
    return new


def load_fn(connection: Connection, fn_id: str, *, lock: bool = False) -> Fn:
    query = select(fns).where(fns.c.id == fn_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise FnNotFound
    return fn_of(row)


def load_app_and_fn(connection: Connection, fn_id: str) -> tuple[App, Fn]:
    query = select(apps, fns).join_from(fns, apps).where(fns.c.id == fn_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise FnNotFound
    return app_of(row), fn_of(row)


def change_fn(connection: Connection, fn_id: str, patch: FnPatch, limits: Limits) -> Fn:
    fn = load_fn(connection, fn_id, lock=True)
    changed = merge_fn(fn, patch, limits)
    if changed is not fn:
        changed = attrs.evolve(changed, updated_at=now(after=fn.updated_at))
        connection.execute(update(fns).where(fns.c.id == fn.id).values(fn_row(changed)))
    return changed


def remove_fn(connection: Connection, fn_id: str) -> None:
    """With its triggers: their foreign keys cascade."""
    if not connection.execute(delete(fns).where(fns.c.id == fn_id)).rowcount:
        raise FnNotFound


def page_of_fns(connection: Connection, where: FnFilter) -> Page[Fn]:
    conditions = [fns.c.app_id == where.app_id]
    if where.name:
        conditions.append(fns.c.name == where.name)
    return page(connection, fns, conditions, where.cursor, where.per_page, fn_of)
