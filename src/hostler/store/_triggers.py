"""What transactions do with triggers."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select

from hostler.datastore import Page, TriggerFilter, TriggerPatch
from hostler.models import Trigger
from hostler.rules import merge_trigger
from hostler.rules.errors import (
    AppNotFound,
    FnNotFound,
    TriggerExists,
    TriggerFnNotInApp,
    TriggerSourceExists,
)

from ._kinds import TRIGGERS
from ._schema import apps, fns, triggers


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
