"""What transactions do with functions."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection, select

from hostler.datastore import FnFilter, FnPatch, Page
from hostler.models import App, Fn
from hostler.rules import Limits, merge_fn
from hostler.rules.errors import AppNotFound, FnExists, FnNotFound

from ._kinds import APPS, FNS
from ._schema import apps, fns


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
