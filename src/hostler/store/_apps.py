"""What transactions do with apps."""

from __future__ import annotations

from sqlalchemy import Connection, select

from hostler.datastore import AppFilter, AppPatch, Page
from hostler.models import App
from hostler.rules import merge_app
from hostler.rules.errors import AppExists, AppNotFound

from ._kinds import APPS
from ._schema import apps


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
