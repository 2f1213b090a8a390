"""Apps, functions and triggers as rows: insert, change, find, page; and all of them at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
    Changes,
    Contents,
    DatastoreError,
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
    MAX_TEXT_BYTES,
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
from .schema import (
    DECODERS,
    ENCODERS,
    ID_BYTES,
    NAME_BYTES,
    SHORT_BYTES,
    SOURCE_BYTES,
    apps,
    fns,
    now,
    triggers,
)


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


_KINDS: tuple[tuple[type[ThingTable[Any, Any, Any]], Table], ...] = (
    (AppTable, apps),
    (FnTable, fns),
    (TriggerTable, triggers),
)
"""In the order in which they can be made."""


def load_contents(connection: Connection) -> Contents:
    """Everything, as it was when this began, but for what was changed or removed meanwhile.

    What was loaded first needs what is loaded later, and was made after it.
    """
    found = [_load(connection, *kind) for kind in reversed(_KINDS)]
    return without_orphans(Contents(found[2], found[1], found[0]))[0]


def _load(connection: Connection, kind: type[ThingTable[Any, Any, Any]], table: Table) -> list[Any]:
    return [kind.of(row) for row in connection.execute(select(table)).mappings()]


def without_orphans(contents: Contents) -> tuple[Contents, list[str]]:
    """The contents without what belongs to nothing, and the titles of what that is."""
    app_ids = {app.id for app in contents.apps}
    kept_fns = [fn for fn in contents.fns if fn.app_id in app_ids]
    fn_ids = {fn.id for fn in kept_fns}
    kept_triggers = [
        trigger
        for trigger in contents.triggers
        if trigger.app_id in app_ids and trigger.fn_id in fn_ids
    ]
    kept = Contents(contents.apps, kept_fns, kept_triggers)
    titles, kept_titles = contents.titles(), kept.titles()
    return kept, [f"{titles[id]} ({id})" for id in titles if id not in kept_titles]


def replace_contents(connection: Connection, new: Contents) -> None:
    """Instead of all that is there. Foreign keys cascade."""
    connection.execute(delete(apps))
    for things, (_, table) in zip(_all(new), _KINDS, strict=True):
        _insert_all(connection, table, things)


def put_contents(connection: Connection, new: Contents, *, dry_run: bool = False) -> Changes:
    """Bring what ``new`` has to the state that it has there, by ids, and leave all else.

    Raises `DatastoreError` with all that can't be together.
    """
    old = load_contents(connection)
    merged, changes = merge_contents(old, new)
    check_contents(merged)
    if dry_run:
        return changes
    for before, things, (_, table) in zip(_all(old), _all(new), _KINDS, strict=True):
        found = {thing.id: thing for thing in before}
        changed = [t for t in things if t.id in found and found[t.id] != t]
        if table is triggers:  # which may have swapped names or sources
            for trigger in changed:
                connection.execute(delete(table).where(table.c.id == trigger.id))
            _insert_all(connection, table, changed)
        else:
            for thing in changed:
                connection.execute(
                    update(table).where(table.c.id == thing.id).values(_row_of(thing))
                )
        _insert_all(connection, table, [thing for thing in things if thing.id not in found])
    return changes


def merge_contents(old: Contents, new: Contents) -> tuple[Contents, Changes]:
    """``old`` with all that ``new`` has, and what that changes of it."""
    titles = new.titles()
    created, updated, unchanged = [], [], 0
    for before, things in zip(_all(old), _all(new), strict=True):
        found = {thing.id: thing for thing in before}
        for thing in things:
            if thing.id not in found:
                created.append(titles[thing.id])
            elif found[thing.id] != thing:
                updated.append(titles[thing.id])
            else:
                unchanged += 1
    merged = [_merged(*pair) for pair in zip(_all(old), _all(new), strict=True)]
    return Contents(*merged), Changes(created, updated, unchanged)


def _merged(old: Iterable[Any], new: Iterable[Any]) -> list[Any]:
    """What the new ones have twice stays twice: `check_contents` tells of it."""
    new = list(new)
    ids = {thing.id for thing in new}
    return [*(thing for thing in old if thing.id not in ids), *new]


def _all(contents: Contents) -> tuple[Iterable[Any], Iterable[Any], Iterable[Any]]:
    return contents.apps, contents.fns, contents.triggers


def _insert_all(connection: Connection, table: Table, things: Iterable[Any]) -> None:
    if rows := [_row_of(thing) for thing in things]:
        connection.execute(insert(table), rows)


def check_contents(contents: Contents) -> None:
    """Raises `DatastoreError` with all that the tables can't hold."""
    if problems := problems_of(contents):
        raise DatastoreError(listed(problems))


def listed(problems: Sequence[str]) -> str:
    """The first ones, and how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    return "; ".join([*problems[:MAX_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])


MAX_PROBLEMS = 20
"""Problems that one error tells of."""

_MOST_BYTES = {
    "id": ID_BYTES,
    "app_id": ID_BYTES,
    "fn_id": ID_BYTES,
    "name": NAME_BYTES,
    "type": SHORT_BYTES,
    "source": SOURCE_BYTES,
    "image": MAX_TEXT_BYTES,
    "syslog_url": MAX_TEXT_BYTES,
    "shape": SHORT_BYTES,
}

_MAY_BE_EMPTY = ("syslog_url", "shape")
_NUMBERS = ("memory", "timeout", "idle_timeout")
_MAX_NUMBER = 2**31 - 1


def problems_of(contents: Contents) -> list[str]:
    """All that the tables can't hold, in words."""
    titles = contents.titles()
    problems = [
        f"{titles[thing.id]} ({thing.id}): its {field} {problem}"
        for things in _all(contents)
        for thing in things
        for field in attrs.fields_dict(type(thing))
        if (problem := _bad_field(field, getattr(thing, field)))
    ]
    orphans = without_orphans(contents)[1]
    problems += [f"{title}: what it belongs to is missing" for title in orphans]

    def check_unique(things: Iterable[Any], *fields: str) -> None:
        groups = defaultdict(list)
        for thing in things:
            key = tuple(getattr(thing, field) for field in fields)
            groups[key].append(f"{titles[thing.id]} ({thing.id})")
        for group in groups.values():
            if len(group) > 1:
                problems.append(f"{' and '.join(group)} have the same {fields[-1]}")

    for things in _all(contents):
        check_unique(things, "id")
    check_unique(contents.apps, "name")
    check_unique(contents.fns, "app_id", "name")
    check_unique(contents.triggers, "fn_id", "name")
    check_unique(contents.triggers, "app_id", "type", "source")
    return problems


def _bad_field(field: str, value: Any) -> str:
    if field in _NUMBERS:
        return "" if 0 <= value <= _MAX_NUMBER else "is out of range"
    if field not in _MOST_BYTES:
        return ""
    if not value and field not in _MAY_BE_EMPTY:
        return "is empty"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if "\0" in value:
        return "has a NUL character"
    return "" if size <= _MOST_BYTES[field] else f"has more than {_MOST_BYTES[field]} bytes"
