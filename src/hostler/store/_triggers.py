"""What transactions do with triggers."""

from __future__ import annotations

import attrs
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from hostler.datastore import Page, TriggerFilter, TriggerPatch
from hostler.ids import new_id
from hostler.models import Trigger
from hostler.rules import merge_trigger
from hostler.rules.errors import (
    AppNotFound,
    FnNotFound,
    TriggerExists,
    TriggerFnNotInApp,
    TriggerNotFound,
    TriggerSourceExists,
)

from ._pages import page
from ._rows import now, trigger_of, trigger_row
from ._schema import apps, fns, triggers


def insert_trigger(connection: Connection, trigger: Trigger) -> Trigger:
    _check_against_others(connection, trigger)
    date = now()
    new = attrs.evolve(trigger, id=new_id(), created_at=date, updated_at=date)
    connection.execute(insert(triggers).values(trigger_row(new)))
    return new


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


def load_trigger(connection: Connection, trigger_id: str, *, lock: bool = False) -> Trigger:
    query = select(triggers).where(triggers.c.id == trigger_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise TriggerNotFound
    return trigger_of(row)


def load_trigger_by_source(connection: Connection, app_id: str, type: str, source: str) -> Trigger:
    query = select(triggers).where(
        triggers.c.app_id == app_id, triggers.c.type == type, triggers.c.source == source
    )
    row = connection.execute(query).mappings().first()
    if row is None:
        raise TriggerNotFound
    return trigger_of(row)


def change_trigger(connection: Connection, trigger_id: str, patch: TriggerPatch) -> Trigger:
    trigger = load_trigger(connection, trigger_id, lock=True)
    changed = merge_trigger(trigger, patch)
    if changed is not trigger:
        _check_against_others(connection, changed)
        changed = attrs.evolve(changed, updated_at=now(after=trigger.updated_at))
        values = trigger_row(changed)
        connection.execute(update(triggers).where(triggers.c.id == trigger.id).values(values))
    return changed


def remove_trigger(connection: Connection, trigger_id: str) -> None:
    if not connection.execute(delete(triggers).where(triggers.c.id == trigger_id)).rowcount:
        raise TriggerNotFound


def page_of_triggers(connection: Connection, where: TriggerFilter) -> Page[Trigger]:
    conditions = [triggers.c.app_id == where.app_id]
    if where.fn_id:
        conditions.append(triggers.c.fn_id == where.fn_id)
    if where.name:
        conditions.append(triggers.c.name == where.name)
    return page(connection, triggers, conditions, where.cursor, where.per_page, trigger_of)
