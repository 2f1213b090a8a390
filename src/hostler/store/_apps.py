"""What transactions do with apps."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection, delete, insert, select, update

from hostler.datastore import AppFilter, AppPatch, Page
from hostler.ids import new_id
from hostler.models import App
from hostler.rules import merge_app
from hostler.rules.errors import AppExists, AppNotFound

from ._pages import page
from ._rows import app_of, app_row, now
from ._schema import apps


def insert_app(connection: Connection, app: App) -> App:
    if connection.scalar(select(apps.c.id).where(apps.c.name == app.name)) is not None:
        raise AppExists
    date = now()
    new = attrs.evolve(app, id=new_id(), created_at=date, updated_at=date)
    connection.execute(insert(apps).values(app_row(new)))
    return new


def load_app(connection: Connection, app_id: str, *, lock: bool = False) -> App:
    query = select(apps).where(apps.c.id == app_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise AppNotFound
    return app_of(row)


def change_app(connection: Connection, app_id: str, patch: AppPatch) -> App:
    app = load_app(connection, app_id, lock=True)
    changed = merge_app(app, patch)
    if changed is not app:
        changed = attrs.evolve(changed, updated_at=now(after=app.updated_at))
        connection.execute(update(apps).where(apps.c.id == app.id).values(app_row(changed)))
    return changed


def remove_app(connection: Connection, app_id: str) -> None:
    """With its functions and triggers: their foreign keys cascade."""
    if not connection.execute(delete(apps).where(apps.c.id == app_id)).rowcount:
        raise AppNotFound


def find_app_id(connection: Connection, name: str) -> str:
    app_id: str | None = connection.scalar(select(apps.c.id).where(apps.c.name == name))
    if app_id is None:
        raise AppNotFound
    return app_id


def page_of_apps(connection: Connection, where: AppFilter) -> Page[App]:
    conditions = [apps.c.name == where.name] if where.name else []
    return page(connection, apps, conditions, where.cursor, where.per_page, app_of)
